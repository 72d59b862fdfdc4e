"""What a run does: its stage, length, batches, and what it writes and when."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.config.section import Count, NonNegativeFloat, Positive, PositiveFloat, Section, Seed


class TrainConfig(Section):
    profile: Literal["guide"] | None = None
    """A named set of defaults, below everything that is written: `guide` has the parameter guide's (docs/training.md)."""

    stage: Literal["pt", "sft", "rm", "dpo", "kto", "ppo", "grpo"] = "sft"
    """What kind of training: `pt` on plain text, `sft` on conversations, `rm`, `dpo`, `kto`, `ppo` and `grpo` on
    preferences and rewards."""

    do_train: bool = True
    """Train. False without `do_eval` or `do_predict` is `tunesmith plan`: check everything, read the data and tell what the
    run would do; load no weights, write nothing."""

    do_eval: bool = False
    """Evaluate on the evaluation data at the end, or without training."""

    do_predict: bool = False
    """Answer the evaluation rows, at the end or without training, and write `generated_predictions.jsonl` and
    `predict_results.json` with BLEU and ROUGE."""

    output_dir: str = ""
    """The run's folder. Default: `saves/MODEL/METHOD/train_DATE`. Foreign files in it are left alone."""

    overwrite_output_dir: bool = False
    """Start anew in a folder that holds a run; what that run wrote is removed first."""

    resume_from_checkpoint: str | bool | None = None
    """Checkpoint to go on from: a path, or `auto` or true for the last whole one in `output_dir`. False never goes
    on."""

    resume_anyway: bool = False
    """Go on from a checkpoint although data or options that shape training changed."""

    num_train_epochs: PositiveFloat = 3.0
    """Passes over the data; may be a fraction."""

    max_steps: Annotated[int, Field(ge=-1, le=2**31)] | None = None
    """Optimizer steps; wins over epochs. Null or -1: off."""

    per_device_train_batch_size: Positive = 8
    """Rows per device and micro-batch. Memory grows with it."""

    per_device_eval_batch_size: Positive = 8
    """Rows per device in evaluation; when rows are answered, a measure of memory for many more (docs/evaluate.md)."""

    gradient_accumulation_steps: Positive = 1
    """Micro-batches per optimizer step. Exactly one large batch, for the memory of a small one."""

    global_batch_size: Positive | None = None
    """Rows per optimizer step over all devices, instead of `gradient_accumulation_steps`."""

    seed: Seed = 42
    """Root of all randomness: data order, split, initialisation, dropout, generation."""

    data_seed: Seed | None = None
    """Seed of the data's order and split. Default: `seed`."""

    deterministic: bool = False
    """Use only deterministic kernels on the GPU; slower. The CPU always is."""

    logging_steps: PositiveFloat = 10
    """Optimizer steps between log rows, or a fraction of the run below 1."""

    logging_first_step: bool = False
    """Log the first step too."""

    logging_dir: str | None = None
    """Folder for the trackers' files; one sub-folder per run. Default: the run's folder."""

    save_steps: PositiveFloat = 500
    """Optimizer steps between checkpoints, or a fraction of the run below 1."""

    save_strategy: Literal["steps", "epoch", "no"] = "steps"
    """When checkpoints are written: every `save_steps`, at each epoch's end, or never."""

    save_total_limit: Positive | None = None
    """Most checkpoints kept; the oldest is removed after a newer one is whole."""

    save_only_model: bool = False
    """Leave optimizer and random states out of checkpoints: smaller, but nothing can go on from them."""

    save_format: Literal["huggingface", "pytorch"] = "huggingface"
    """How weights are written: `huggingface`: safetensors, safe to load; `pytorch`: `.bin` files, for programs that read
    nothing else. What a checkpoint needs to go on from is never pickled."""

    save_best_model: bool = False
    """Keep the best checkpoint by `metric_for_best_model`, beside those of `save_total_limit`, and make it the final model.
    Needs evaluation data. Unless `eval_steps` or `eval_strategy` is written, each checkpoint is evaluated."""

    metric_for_best_model: str = "eval_loss"
    """What `save_best_model` and early stopping go by: what evaluation reports, such as `eval_loss` or `eval_accuracy`, or
    with `eval_on_each_dataset` one set's, `eval_NAME_loss`; without a name the mean over sets."""

    greater_is_better: bool | None = None
    """Whether the best is the highest. Default: known by the metric's name."""

    early_stopping_steps: Positive | None = None
    """Stop after this many evaluations in a row without a better one. Needs evaluation data."""

    eval_steps: PositiveFloat | None = None
    """Optimizer steps between evaluations, or a fraction of the run below 1."""

    eval_strategy: Literal["steps", "epoch", "no"] | None = None
    """When to evaluate. Default: every `eval_steps` when that is written, else at the end."""

    eval_on_start: bool = False
    """Evaluate before the first step too: what training begins with. Needs evaluation data."""

    eval_delay: NonNegativeFloat = 0.0
    """Leave out the evaluations of so many first steps, or with `eval_strategy: epoch` of so many epochs."""

    metrics: list[Literal["loss", "ppl", "accuracy", "exact_match", "f1", "rouge", "bleu"]] = ["loss", "ppl"]
    """What evaluation reports, besides the loss. `ppl`: the perplexity. `accuracy`: the share of trained tokens that are the
    likeliest. `exact_match`, `f1`, `rouge` and `bleu` need the evaluation rows answered, which is done at each evaluation
    and may take longer than training; `f1` is the mean over labels where the dataset declares `labels`, else that of shared
    words."""

    predict_with_generate: bool = False
    """Evaluate by generated answers too: `bleu` and `rouge` in `metrics`."""

    report_to: list[str] = ["none"]
    """Trackers, comma-separated: none, tensorboard, wandb, mlflow, swanlab, trackio."""

    run_name: str | None = None
    """The run's name in trackers. Default: the folder's."""

    plot_loss: bool = False
    """Draw `training_loss.png`; also after a run that was stopped."""

    include_num_input_tokens_seen: bool = False
    """Log how many tokens were seen: all, without padding, and trained."""

    disable_tqdm: bool = False
    """Draw no progress display. It is off by itself when the output is no terminal."""

    debug: bool = False
    """Log more, show the first rows, and show tracebacks."""

    lang: Literal["auto", "en", "zh"] = "auto"
    """Language of errors, warnings and notes: English, Chinese, or `auto`: Chinese where `TUNESMITH_LANG`, `LC_ALL`,
    `LC_MESSAGES` or `LANG` begins with `zh`, English elsewhere."""

    ddp_timeout: Positive = 1800
    """Seconds that one process may let the others wait. Then the run ends, and says which one stood still, in which step and
    where in the program. Preparing rows does not count."""

    local_rank: Annotated[int, Field(ge=-1, le=2**31)] | None = None
    """Accepted from launchers; must agree with theirs, has no effect otherwise."""

    nproc_per_node: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Processes to start on this machine. Default: one per GPU, or one on a CPU."""

    dataloader_num_workers: Count = 0
    """Steps whose batches a thread builds ahead of the one that is computed; 0 means one, too. Changes no result."""

    dataloader_drop_last: bool = False
    """Leave out of each epoch the last rows of its order that do not fill a micro-batch on every device. Other rows each
    time, as each epoch has an order of its own; nothing is gained by it here, where a short step counts as what it is."""

    fit: Literal["off", "auto"] = "off"
    """`auto`: where a step would not fit into the free memory, as `tunesmith estimate` reckons, take smaller micro-batches with
    as many more accumulated, and recompute activations; the same is learned, and what was changed is said."""

    price: NonNegativeFloat | None = None
    """What one device costs an hour, in `currency`, for estimates and the run's summary."""

    price_per_kwh: NonNegativeFloat | None = None
    """What a kilowatt-hour costs, in `currency`: estimates reckon electricity at `watts`, instead of rent."""

    watts: PositiveFloat | None = None
    """Watts that one device takes, for `price_per_kwh`. Default: what the table of devices says."""

    currency: Literal["USD", "CNY", "EUR"] = "USD"
    """Currency of `price` and `price_per_kwh`; where neither is given, of the prices of the table that are told first. Nothing
    is converted."""

    loss_limit: NonNegativeFloat | None = None
    """Stop with an error when the loss of a step is above this; a guard for unattended runs."""
