"""What may not go together is refused, naming both; what has no effect is said; nothing is ignored in silence."""

import pytest

from tunesmith.config import rules
from tunesmith.config.load import load
from tunesmith.config.schema import Config, fields
from tunesmith.config.shapes import shape_of

STREAMING = ["--streaming", "--max_steps", "9"]

ERRORS = [
    (["--val_size", "0.1", "--eval_dataset", "x"],
     "--val_size: rows are split off, but eval_dataset names evaluation data already; leave one out"),
    (["--global_batch_size", "16", "--gradient_accumulation_steps", "2"],
     "--global_batch_size: decides gradient_accumulation_steps, which is given too; leave one out"),
    (["--global_batch_size", "15"], "--global_batch_size: 15 is no multiple of per_device_train_batch_size, 8"),
    (["--save_only_model", "--resume_from_checkpoint"],
     "--save_only_model: leaves out what resume_from_checkpoint needs; leave one out"),
    (["--max_steps", "0"], "--max_steps: must be at least 1, or -1 to go by num_train_epochs, got 0"),
    (["--warmup_steps", "2.5"], "--warmup_steps: must be a whole number of steps, or a fraction below 1, got 2.5"),
    (["--save_steps", "1.5"], "--save_steps: must be a whole number of steps, or a fraction below 1, got 1.5"),
    (["--val_size", "1.5"], "--val_size: must be a whole number of rows, or a fraction below 1, got 1.5"),
    (["--optim", "lomo"], "--optim: lomo is not offered: weights would move while gradients still come, so none could be "
     "clipped, summed over micro-batches or refused; sgd keeps no more between steps"),
    (["--optim", "adamw_torch_xla"],
     "--optim: adamw_torch_xla is not offered: runs on TPUs alone, for which nothing is built"),
    (["--use_galore", "--use_apollo", "--finetuning_type", "full"],
     "--use_apollo true contradicts --use_galore true; both set optim"),
    (["--use_badam"], "--use_badam: badam is for whole weights, not for finetuning_type lora; choose full or freeze"),
    (["--optim", "galore_adamw", "--finetuning_type", "full", "--galore_target", "q", "--optim_target_modules", "k"],
     "--galore_target: says the same as optim_target_modules; leave one out"),
    (["--lr_scheduler_type", "reduce_lr_on_plateau", "--val_size", "9"],
     "--lr_scheduler_type: reduce_lr_on_plateau follows the evaluation loss; set eval_steps, and val_size or eval_dataset"),
    (["--optim", "schedule_free_sgd", "--lr_scheduler_type", "constant", "--save_best_model", "--val_size", "9",
      "--eval_steps", "5"],
     "--save_best_model: a model of schedule_free_sgd is the average of its whole run so far, not one step's; leave one "
     "out"),
    (["--optim", "lbfgs"], "--optim: unknown optimizer 'lbfgs'; allowed: `tunesmith explain optim` lists all 42"),
    (["--lr_scheduler_type", "cosin"],
     "--lr_scheduler_type: unknown schedule 'cosin'; did you mean 'cosine'? allowed: linear, "
     "cosine, cosine_with_restarts, polynomial, constant, constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, "
     "cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay, greedy"),
    (["--template", "jinja:none.jinja"], "--template: there is no file 'none.jinja'"),
    (["--template", "custom"], "--template: custom needs template_args"),
    (["--report_to", "http://localhost:5000"],
     "--report_to: takes trackers' names, not the address 'http://localhost:5000'; set "
     "MLFLOW_TRACKING_URI or WANDB_BASE_URL in the environment and write mlflow or wandb"),
    (["--report_to", "wandbb"],
     "--report_to: unknown tracker 'wandbb'; did you mean 'wandb'? allowed: none, tensorboard, "
     "wandb, mlflow, swanlab, trackio"),
    (["--report_to", "none,wandb"], "--report_to: none can't stand beside other trackers"),
    (["--metrics", "loss,rouge"], "--metrics: there are no rows to answer: set eval_dataset or val_size"),
    (["--do_predict", "--eval_dataset", "x", "--train_on_prompt"], "--do_predict: where an answer begins is not known when "
     "prompts are trained too (train_on_prompt); answer in a run of its own"),
    (["--do_predict", "--eval_dataset", "x", "--stage", "pt"],
     "--do_predict: plain text, as in the stage pt, asks nothing that can be answered"),
    (["--loss", "dfft"],
     "--loss: unknown loss 'dfft'; did you mean 'dft'? allowed: cross_entropy, dft, eaft, asft"),
    (["--use_dft_loss", "--use_eaft_loss"], "--use_eaft_loss true contradicts --use_dft_loss true; both set loss"),
    (["--use_dft_loss", "--label_smoothing", "0.1"],
     "--label_smoothing: goes with loss cross_entropy only, not with dft; leave one out"),
    (["--loss", "asft", "--pissa_init"],
     "--loss: asft compares with the model without its adapter, which lora_init pissa changes; leave one out"),
    (["--save_best_model"], "--save_best_model: needs evaluation data: set val_size or eval_dataset"),
    (["--early_stopping_patience", "2"],
     "--early_stopping_patience: needs evaluation data: set val_size or eval_dataset"),
    (["--load_best_model_at_end", "--val_size", "9", "--eval_strategy", "no"],
     "--load_best_model_at_end: needs evaluations, and eval_strategy is no"),
    (["--dropout_rate", "0.1", "--flash_attn", "flex"],
     "--dropout_rate: FlexAttention has no dropout; choose another flash_attn"),
    (["--quantization_bit", "2"],
     "--quantization_bit: bnb holds 4 or 8 bits, not 2; quantization_method hqq does"),
    (["--quantization_bit", "8", "--finetuning_type", "full"],
     "--quantization_bit: finetuning_type full trains weights that would be held in few bits; choose lora"),
    (["--finetuning_type", "qlora", "--lora_init", "pissa"],
     "--lora_init: pissa takes its start out of weights that are held in few bits; loftq or kaiming go"),
    (["--lora_init", "loftq"],
     "--lora_init: loftq makes up for what quantization_bit rounds away; write quantization_bit too"),
    (["--quantization_bit", "4", "--adapter", "a,b"],
     "--quantization_bit: adapters cannot be merged into weights of few bits; export a merged model first"),
    (["--quantization_bit", "8", "--quantization_method", "eetq"],
     "--quantization_method: eetq is not built yet"),
    (["--stage", "dpo"], "--stage: dpo is not built yet"),
    (["--price", "1", "--price_per_kwh", "1"],
     "--price: says what an hour costs, and so does price_per_kwh; leave one out"),
    (["--train_from_scratch"],
     "--train_from_scratch: random weights are trained and saved whole; write finetuning_type: full"),
    (["--train_from_scratch", "--finetuning_type", "full", "--adapter", "a"],
     "--train_from_scratch: adapters belong to weights, which are not read; leave adapter_name_or_path out"),
    (["--streaming"], "--streaming: needs max_steps"),
    ([*STREAMING, "--val_size", "0.1"],
     "--val_size: 0.1 is a share of rows whose number is not known; give a number of rows"),
    ([*STREAMING, "--max_samples", "9", "--sample_strategy", "random"],
     "--sample_strategy: random needs to read all rows first; first takes the first ones"),
    ([*STREAMING, "--batching", "length_grouped"],
     "--batching: length_grouped needs the lengths of all rows; padded and token_budget go with streaming"),
    ([*STREAMING, "--tokenized_path", "x"], "--tokenized_path: nothing is prepared beforehand; leave one out"),
    ([*STREAMING, "--save_strategy", "epoch"], "--save_strategy: an epoch's end is not known beforehand; choose steps"),
    ([*STREAMING, "--eval_strategy", "epoch", "--val_size", "9"],
     "--eval_strategy: an epoch's end is not known beforehand; choose steps"),
]  # fmt: skip

REMARKS = [
    (["--finetuning_type", "full", "--lora_rank", "16"], "warning: lora_rank: has no effect with finetuning_type full"),
    (["--freeze_extra_modules", "x"], "warning: freeze_extra_modules: has no effect with finetuning_type lora"),
    (["--finetuning_type", "full", "--adapter", "a"],
     "note: adapter_name_or_path: adapters are merged into the model before finetuning_type full trains it"),
    (["--lr_scheduler_type", "Constant", "--warmup_steps", "5"],
     "warning: warmup_steps: has no effect with lr_scheduler_type constant; constant_with_warmup has one"),
    (["--eval_steps", "5"],
     "warning: eval_steps: has no effect without evaluation data: set val_size or eval_dataset"),
    (["--watts", "300"], "warning: watts: has no effect without price_per_kwh"),
    (["--eval_on_start"],
     "warning: eval_on_start: has no effect without evaluation data: set val_size or eval_dataset"),
    (["--eval_delay", "5", "--val_size", "9"], "warning: eval_delay: has no effect without eval_steps or eval_strategy"),
    (["--dataloader_drop_last", *STREAMING],
     "warning: dataloader_drop_last: has no effect with streaming, whose steps are always full"),
    (["--dataloader_drop_last", "--batching", "token_budget"], "warning: dataloader_drop_last: has no effect with batching "
     "token_budget, whose steps are of about equally many tokens"),
    (["--eval_steps", "5", "--val_size", "9", "--eval_strategy", "epoch"],
     "warning: eval_steps: has no effect with eval_strategy epoch"),
    (["--save_strategy", "epoch", "--save_steps", "5"], "warning: save_steps: has no effect with save_strategy epoch"),
    (["--eaft_alpha", "0.5"], "warning: eaft_alpha: has no effect unless loss is eaft"),
    (["--asft_alpha", "0.5", "--loss", "dft"], "warning: asft_alpha: has no effect unless loss is asft"),
    (["--quantization_method", "hqq"],
     "warning: quantization_method: has no effect without quantization_bit"),
    (["--quantization_bit", "8", "--quantization_type", "fp4"], "warning: quantization_type: has no effect unless "
     "quantization_bit is 4 and quantization_method bnb"),
    (["--galore_rank", "4"],
     "warning: galore_rank: has no effect unless optim is galore_adamw or galore_adafactor"),
    (["--optim", "schedule_free_adamw"], "warning: lr_scheduler_type: linear lowers a rate that schedule_free_adamw wants to "
     "stay; constant_with_warmup is meant for it"),
    (["--pissa_iter", "4"], "warning: pissa_iter: has no effect unless lora_init is pissa"),
    (["--lora_init", "zero"], "note: lora_init: step 0 is the base model; the first matrix starts as kaiming, "
     "since both at zero would never learn"),
    (["--local_rank", "3"], "note: local_rank: 3 is ignored: no launcher started this process"),
    (["--ddp_timeout", "180000000"],
     "note: ddp_timeout: 180000000 seconds are 2083 days; a stuck process would be noticed only then"),
]  # fmt: skip

SILENT = [
    ["--finetuning_type", "full", "--lora_rank", "8"],
    ["--lr_scheduler_type", "constant", "--warmup_steps", "0"],
    ["--eval_strategy", "no"],
    ["--eval_steps", "0.5", "--val_size", "0.1"],
    ["--warmup_steps", "0.03"],
    ["--max_steps", "-1"],
    ["--finetuning_type", "qlora", "--lora_rank", "16", "--quantization_type", "fp4"],
    ["--quantization_bit", "4", "--adapter", "a"],
    ["--local_rank", "0"],
    ["--global_batch_size", "16"],
    ["--global_batch_size", "16", "--gradient_accumulation_steps", "1"],
    ["--preprocessing_num_workers", "1"],
    [*STREAMING, "--buffer_size", "9", "--val_size", "9", "--packing", "--sample_strategy", "first"],
]


@pytest.mark.parametrize(("words", "line"), ERRORS)
def test_what_is_refused(refused, words, line):
    assert refused(*words) == [f"command line: {line}"]


@pytest.mark.parametrize(("words", "line"), REMARKS)
def test_what_is_remarked(loaded, capsys, words, line):
    loaded(*words)
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("words", SILENT)
def test_what_needs_no_word(loaded, capsys, words):
    loaded(*words)
    assert capsys.readouterr().err == ""


def test_a_worker_does_not_repeat_its_parent(loaded, capsys, monkeypatch):
    monkeypatch.setenv("TUNESMITH_PARENT", "1")
    loaded("--local_rank", "3")
    assert capsys.readouterr().err == ""


def test_the_launcher_says_the_rank(loaded, refused, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert loaded("--local_rank", "1") and loaded("--local_rank", "-1")
    assert refused("--local_rank", "2") == [
        "command line: --local_rank: is 2, but the launcher's LOCAL_RANK is 1; leave it out"
    ]


def test_a_problem_of_a_rule_stands_where_its_option_is_written(refused):
    assert refused("--eval_dataset", "x", yaml="seed: 1\nval_size: 0.1\n")[0].startswith("x.yaml:2: val_size: rows are")


def test_an_option_that_is_wrong_is_not_judged_again(refused):
    assert len(refused("--val_size", "-1", "--eval_dataset", "x")) == 1


@pytest.mark.parametrize("name", rules.NOT_BUILT_AT_ALL)
def test_what_is_not_built_is_refused_and_its_default_accepted(loaded, refused, name):
    shape, default = shape_of(name), fields()[name][1].default
    values = {bool: str(not default).lower(), float: "0.5", int: "7", str: "word"}
    value = shape.choices[-1] if shape.choices else next((v for k, v in values.items() if k in shape.scalars), "1")
    value = "a=1" if shape.mapping else value
    assert f"command line: --{name}: not built yet" in refused(f"--{name}={value}")
    assert loaded(yaml=f"{name}: {'null' if default is None else default if default != '' else repr('')}\n".lower())


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in rules.NOT_BUILT for value in rules.NOT_BUILT[name]]
)
def test_values_that_are_not_built_are_refused(refused, name, value):
    assert refused(f"--{name}={value}")[0].endswith(f"--{name}: {str(value).lower()} is not built yet")


@pytest.mark.parametrize(
    ("words", "optim"),
    [
        (["--use_galore"], "galore_adamw"),
        (["--optim", "adamw_torch", "--use_galore"], "galore_adamw"),
        (["--use_galore", "--optim", "adafactor"], "galore_adafactor"),
        (["--adafactor"], "adafactor"),
        (["--use_apollo", "--optim", "adamw_torch"], "apollo_adamw"),
        (["--use_muon", "--use_galore", "false"], "muon"),
    ],
)
def test_a_switch_beside_an_optimizer(loaded, words, optim):
    assert loaded("--finetuning_type", "full", *words).config.optim.optim == optim


def test_the_defaults_pass_every_rule():
    found = rules.check(Config(), frozenset(fields()), "help")
    assert found == []


def test_plan_and_evaluation_need_no_training_data():
    assert load(["--model", "m", "--do_train", "False", "--do_eval", "--eval_dataset", "e"], "train")
