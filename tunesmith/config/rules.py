"""What may not go together, what has no effect, and what is not built yet.  Knows values; knows no file or flag.

Each rule is a function with its reason; it yields findings that name the options they are about.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith import catalog
from tunesmith.config.schema import Config

NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "stage": ("rm", "dpo", "kto", "ppo", "grpo"),
    "finetuning_type": ("qlora", "oft", "llamapro"),
    "compute_type": ("fp8",),
    "lora_init": ("loftq",),
    "lr_scheduler_type": ("reduce_lr_on_plateau", "greedy"),
    "optim": (
        "adalomo", "adam_mini", "adamw_8bit", "adamw_anyprecision", "adamw_apex_fused", "adamw_bnb_8bit",
        "adamw_torch_4bit", "adamw_torch_8bit", "adamw_torch_npu_fused", "adamw_torch_xla", "ademamix", "ademamix_8bit",
        "apollo_adamw", "apollo_adamw_layerwise", "badam", "galore_adafactor", "galore_adafactor_layerwise",
        "galore_adamw", "galore_adamw_8bit", "galore_adamw_8bit_layerwise", "galore_adamw_layerwise", "grokadamw",
        "lion_32bit", "lion_8bit", "lomo", "muon", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit",
        "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop_bnb", "rmsprop_bnb_32bit",
        "rmsprop_bnb_8bit", "schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd", "stable_adamw",
    ),
    "save_format": ("pytorch",),
}  # fmt: skip
"""Option -> its values that are not built yet."""

NOT_BUILT_AT_ALL = (
    "data_augmentation", "augment",
    "rope_scaling", "dropout_rate", "quantization_bit", "quantization_method", "resize_vocab", "add_tokens",
    "add_special_tokens", "oft_rank", "neftune_noise_alpha", "label_smoothing_factor", "loss",
    "save_best_model", "early_stopping_steps", "metric_for_best_model",
    "export_quantization_bit", "export_quantization_dataset",
)  # fmt: skip
"""Options of which only the default is built."""

GENERATED = ("exact_match", "f1", "rouge", "bleu")
"""Metrics that rows are answered for."""

ANSWERING = ("assistant", "function")
"""Roles whose messages are answers."""

NO_EFFECT_YET = {
    "media_dir": "images, audio and video are not built yet",
}
"""Option -> why writing it changes nothing yet, neither the result nor what is kept."""

NEEDS = {
    "train": ("model_name_or_path", "dataset"),
    "chat": ("model_name_or_path",),
    "inspect": ("model_name_or_path", "dataset"),
    "lint": ("dataset",),
    "export": ("model_name_or_path", "export_dir"),
}
"""Command -> options it can't do without."""

EXAMPLES = {
    "model_name_or_path": "a folder or a hub name",
    "dataset": "names of dataset_info.json, or files",
    "export_dir": "a new folder for the merged model",
}

LORA_ONLY = (
    "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "lora_init", "pissa_iter", "use_rslora", "use_dora",
    "create_new_adapter", "additional_target", "loraplus_lr_ratio", "loraplus_lr_embedding", "lora_learning_rate",
)  # fmt: skip
FREEZE_ONLY = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")
WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
STEPS = ("warmup_steps", "logging_steps", "save_steps", "eval_steps")
DAY_SECONDS = 24 * 60 * 60


@dataclass(frozen=True)
class Finding:
    """`options[0]` is where it is told; all of them are what it is about."""

    kind: Literal["error", "warning", "note"]
    options: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Asked:
    """What a rule looks at: the config, what of it was written, its flat values, and the command."""

    config: Config
    given: frozenset[str]
    flat: dict[str, Any]
    defaults: dict[str, Any]
    command: str

    def wrote(self, name: str) -> bool:
        """Whether the user asked for something else than the default."""
        return name in self.given and self.flat[name] != self.defaults[name]


Rule = Callable[[Asked], Iterator[Finding]]


def check(config: Config, given: frozenset[str], command: str) -> list[Finding]:
    """Everything the rules find, errors and remarks."""
    asked = Asked(config, given, config.flat(), Config().flat(), command)
    return [finding for rule in RULES for finding in rule(asked)]


def not_built(asked: Asked) -> Iterator[Finding]:
    """An option that would be ignored is worse than none: what does not exist yet is refused."""
    for name, values in NOT_BUILT.items():
        if asked.flat[name] in values and asked.flat[name] is not None and asked.flat[name] != asked.defaults[name]:
            yield Finding("error", (name,), f"{_yaml(asked.flat[name])} is not built yet")
    for name in NOT_BUILT_AT_ALL:
        if asked.wrote(name):
            yield Finding("error", (name,), "not built yet")


def no_effect_yet(asked: Asked) -> Iterator[Finding]:
    """What is harmless without being built is accepted, and said."""
    for name, reason in NO_EFFECT_YET.items():
        if asked.wrote(name):
            yield Finding("warning", (name,), f"has no effect: {reason}")


def needed(asked: Asked) -> Iterator[Finding]:
    """Without a model or data there is nothing to start."""
    for name in NEEDS.get(asked.command, ()):
        evaluates_only = name == "dataset" and not asked.config.train.do_train and asked.config.data.eval_dataset
        has_adapter = (
            name == "model_name_or_path" and asked.command == "chat" and asked.config.model.adapter_name_or_path
        )
        if not asked.flat[name] and not evaluates_only and not has_adapter:
            yield Finding("error", (name,), f"is missing: {EXAMPLES[name]}")


def names_of_the_catalog(asked: Asked) -> Iterator[Finding]:
    """Names are checked before anything is loaded, so a typing error costs no minutes."""
    for kind, name, value in (
        ("optimizer", "optim", asked.config.optim.optim),
        ("schedule", "lr_scheduler_type", asked.config.optim.lr_scheduler_type),
    ):
        if value not in catalog.names(kind) and value not in NOT_BUILT[name]:
            yield Finding("error", (name,), catalog.unknown(kind, value))


def template_name(asked: Asked) -> Iterator[Finding]:
    """`auto`, `jinja:PATH`, `custom` with its parts, the parts themselves, or a name of the catalog."""
    name, args = asked.config.data.template, asked.config.data.template_args
    if not isinstance(name, str):
        for problem in catalog.problems_of_template({**name, **args}):
            yield Finding("error", ("template",), problem)
    elif name.startswith("jinja:"):
        if not os.path.isfile(os.path.expanduser(name.removeprefix("jinja:"))):
            yield Finding("error", ("template",), f"there is no file '{name.removeprefix('jinja:')}'")
    elif name == "custom":
        if not args:
            yield Finding("error", ("template", "template_args"), "custom needs template_args")
    elif name != "auto" and name not in catalog.names("template"):
        yield Finding("error", ("template",), catalog.unknown("template", name))


def trackers(asked: Asked) -> Iterator[Finding]:
    """Trackers are known by name; where they send their data is theirs to know."""
    for name in asked.config.train.report_to:
        if "://" in name or name.startswith(("www.", "localhost")):
            yield Finding(
                "error", ("report_to",), f"takes trackers' names, not the address '{name}'; {WHERE_ADDRESSES_GO}"
            )
        elif name != "none" and name not in catalog.names("tracker"):
            known = ["none", *catalog.names("tracker")]
            guess = catalog.did_you_mean(name, known) or ";"
            yield Finding("error", ("report_to",), f"unknown tracker '{name}'{guess} allowed: {', '.join(known)}")
    if "none" in asked.config.train.report_to and len(asked.config.train.report_to) > 1:
        yield Finding("error", ("report_to",), "none can't stand beside other trackers")


WHERE_ADDRESSES_GO = "set MLFLOW_TRACKING_URI or WANDB_BASE_URL in the environment and write mlflow or wandb"


def steps_are_whole(asked: Asked) -> Iterator[Finding]:
    """Below 1 is a fraction of the run; from 1 on it counts steps, and there is no half step."""
    for name in STEPS:
        value = asked.flat[name]
        if value is not None and value >= 1 and value != int(value):
            text = f"must be a whole number of steps, or a fraction below 1, got {value:g}"
            yield Finding("error", (name,), text)
    rows = asked.config.data.val_size
    if rows >= 1 and rows != int(rows):
        yield Finding("error", ("val_size",), f"must be a whole number of rows, or a fraction below 1, got {rows:g}")


def no_steps(asked: Asked) -> Iterator[Finding]:
    """Zero steps is no run; -1 and null mean that epochs rule."""
    if asked.config.train.max_steps == 0:
        yield Finding("error", ("max_steps",), "must be at least 1, or -1 to go by num_train_epochs, got 0")


def nothing_is_pickled(asked: Asked) -> Iterator[Finding]:
    """A pickled file is a program; a merged model is data."""
    if asked.config.export.export_legacy_format:
        text = "not built: nothing is pickled here; what reads .bin files reads safetensors too"
        yield Finding("error", ("export_legacy_format",), text)


def export_elsewhere(asked: Asked) -> Iterator[Finding]:
    """Options of another command are probably meant to do something."""
    if asked.command != "export":
        for name in ("export_dir", "export_size", "export_device", "export_hub_model_id"):
            if asked.wrote(name):
                yield Finding("note", (name,), "is read by `tunesmith export` alone")


def hub_of_uploads(asked: Asked) -> Iterator[Finding]:
    """Names on two hubs look the same."""
    if asked.config.model.use_modelscope and asked.config.export.export_hub_model_id:
        text = "uploads to Hugging Face; uploading to ModelScope (use_modelscope) is not built"
        yield Finding("error", ("export_hub_model_id", "use_modelscope"), text)


def two_evaluation_sets(asked: Asked) -> Iterator[Finding]:
    """Splitting rows off while other rows are named for evaluation leaves open which are meant."""
    if asked.config.data.val_size and asked.config.data.eval_dataset:
        text = "rows are split off, but eval_dataset names evaluation data already; leave one out"
        yield Finding("error", ("val_size", "eval_dataset"), text)


def two_batch_sizes(asked: Asked) -> Iterator[Finding]:
    """The global batch decides the accumulation, so only one of them can be free."""
    train = asked.config.train
    if train.global_batch_size and asked.wrote("gradient_accumulation_steps"):
        text = "decides gradient_accumulation_steps, which is given too; leave one out"
        yield Finding("error", ("global_batch_size", "gradient_accumulation_steps"), text)
    if train.global_batch_size and train.global_batch_size % train.per_device_train_batch_size:
        text = (
            f"{train.global_batch_size} is no multiple of per_device_train_batch_size, "
            f"{train.per_device_train_batch_size}"
        )
        yield Finding("error", ("global_batch_size", "per_device_train_batch_size"), text)


def stream(asked: Asked) -> Iterator[Finding]:
    """Of a stream nobody knows the length, nor any row but those that were read."""
    data, train = asked.config.data, asked.config.train
    if not data.streaming or asked.command == "lint":
        return
    if train.max_steps in (None, -1):
        yield Finding("error", ("streaming", "max_steps"), "needs max_steps")
    if 0 < data.val_size < 1:
        text = f"{data.val_size:g} is a share of rows whose number is not known; give a number of rows"
        yield Finding("error", ("val_size", "streaming"), text)
    if data.max_samples and data.sample_strategy == "random":
        text = "random needs to read all rows first; first takes the first ones"
        yield Finding("error", ("sample_strategy", "streaming"), text)
    if data.batching == "length_grouped":
        text = "length_grouped needs the lengths of all rows; padded and token_budget go with streaming"
        yield Finding("error", ("batching", "streaming"), text)
    if data.tokenized_path:
        yield Finding("error", ("tokenized_path", "streaming"), "nothing is prepared beforehand; leave one out")
    for name in ("save_strategy", "eval_strategy"):
        if asked.flat[name] == "epoch":
            text = "an epoch's end is not known beforehand; choose steps"
            yield Finding("error", (name, "streaming"), text)


def resume_from_weights_alone(asked: Asked) -> Iterator[Finding]:
    """A checkpoint without optimizer and random states can't be gone on from."""
    if asked.config.train.save_only_model and asked.config.train.resume_from_checkpoint:
        text = "leaves out what resume_from_checkpoint needs; leave one out"
        yield Finding("error", ("save_only_model", "resume_from_checkpoint"), text)


def other_methods_options(asked: Asked) -> Iterator[Finding]:
    """An option of another tuning method is probably a leftover."""
    method = asked.config.tuning.finetuning_type
    for owner, names in (("lora", LORA_ONLY), ("freeze", FREEZE_ONLY)):
        for name in names:
            if asked.wrote(name) and method in ("lora", "freeze", "full") and method != owner:
                text = f"has no effect with finetuning_type {method}"
                yield Finding("warning", (name, "finetuning_type"), text)
    if method != "lora" and asked.config.model.adapter_name_or_path and asked.command == "train":
        text = f"adapters are merged into the model before finetuning_type {method} trains it"
        yield Finding("note", ("adapter_name_or_path", "finetuning_type"), text)


def options_of_one_value(asked: Asked) -> Iterator[Finding]:
    """Options that only some value of another one reads."""
    if asked.wrote("pissa_iter") and asked.config.tuning.lora_init != "pissa":
        yield Finding("warning", ("pissa_iter", "lora_init"), "has no effect unless lora_init is pissa")
    if asked.wrote("loraplus_lr_embedding") and not asked.config.optim.loraplus_lr_ratio:
        yield Finding("warning", ("loraplus_lr_embedding",), "has no effect without loraplus_lr_ratio")
    if asked.wrote("save_steps") and asked.config.train.save_strategy != "steps":
        text = f"has no effect with save_strategy {asked.config.train.save_strategy}"
        yield Finding("warning", ("save_steps", "save_strategy"), text)
    if asked.wrote("sample_strategy") and not asked.config.data.max_samples:
        yield Finding("warning", ("sample_strategy",), "has no effect without max_samples")
    if asked.wrote("buffer_size") and not asked.config.data.streaming:
        yield Finding("warning", ("buffer_size", "streaming"), "has no effect without streaming")


def identity_start(asked: Asked) -> Iterator[Finding]:
    """With both matrices zero neither would ever get a gradient."""
    if asked.config.tuning.lora_init == "zero" and "lora_init" in asked.given:
        text = "step 0 is the base model; the first matrix starts as kaiming, since both at zero would never learn"
        yield Finding("note", ("lora_init",), text)


def warmup_ignored(asked: Asked) -> Iterator[Finding]:
    """Some schedules have no warmup; a user who wrote one should know."""
    name = asked.config.optim.lr_scheduler_type
    if asked.config.optim.warmup_steps and name in WITHOUT_WARMUP:
        more = "; constant_with_warmup has one" if name == "constant" else ""
        text = f"has no effect with lr_scheduler_type {name}{more}"
        yield Finding("warning", ("warmup_steps", "lr_scheduler_type"), text)


def evaluation_without_data(asked: Asked) -> Iterator[Finding]:
    """Evaluation needs rows."""
    if asked.command != "train" or asked.config.data.val_size or asked.config.data.eval_dataset:
        return
    for name in ("eval_steps", "eval_strategy", "do_eval"):
        if asked.wrote(name) and asked.flat[name] != "no":
            text = "has no effect without evaluation data: set val_size or eval_dataset"
            yield Finding("warning", (name, "eval_dataset"), text)


def answers(asked: Asked) -> Iterator[Finding]:
    """Rows are answered that have a question, and of which it is known where their answer begins."""
    train, data = asked.config.train, asked.config.data
    generated = [name for name in train.metrics if name in GENERATED]
    options = [("do_predict", train.do_predict), ("predict_with_generate", train.predict_with_generate)]
    written = [name for name, is_set in [*options, ("metrics", bool(generated))] if is_set]
    if asked.command != "train" or not written:
        return
    if not (data.val_size or data.eval_dataset):
        yield Finding(
            "error", (written[0], "eval_dataset"), "there are no rows to answer: set eval_dataset or val_size"
        )
    if train.stage == "pt":
        yield Finding(
            "error", (written[0], "stage"), "plain text, as in the stage pt, asks nothing that can be answered"
        )
    if data.train_on_prompt or not set(data.train_roles) <= set(ANSWERING):
        option = "train_on_prompt" if data.train_on_prompt else "train_roles"
        text = (
            f"where an answer begins is not known when prompts are trained too ({option}); answer in a run of its own"
        )
        yield Finding("error", (written[0], option), text)


def eval_steps_without_strategy(asked: Asked) -> Iterator[Finding]:
    """Two options say when to evaluate."""
    strategy = asked.config.train.eval_strategy
    if asked.config.train.eval_steps and strategy in ("epoch", "no"):
        yield Finding("warning", ("eval_steps", "eval_strategy"), f"has no effect with eval_strategy {strategy}")


def rank_of_the_launcher(asked: Asked) -> Iterator[Finding]:
    """The launcher's environment says which process this is; an option can only agree."""
    written, launched = asked.config.train.local_rank, os.environ.get("LOCAL_RANK")
    if written is None:
        return
    if launched is None:
        if written > 0:
            yield Finding("note", ("local_rank",), f"{written} is ignored: no launcher started this process")
    elif written not in (-1, int(launched)) and asked.wrote("local_rank"):
        text = f"is {written}, but the launcher's LOCAL_RANK is {launched}; leave it out"
        yield Finding("error", ("local_rank",), text)


def long_timeout(asked: Asked) -> Iterator[Finding]:
    """Data is prepared before processes wait for one another, so the timeout need not cover it."""
    seconds = asked.config.train.ddp_timeout
    if seconds > DAY_SECONDS:
        days = seconds / DAY_SECONDS
        text = f"{seconds} seconds are {days:.0f} days; a stuck process would be noticed only then"
        yield Finding("note", ("ddp_timeout",), text)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


RULES: tuple[Rule, ...] = (
    not_built,
    no_effect_yet,
    needed,
    names_of_the_catalog,
    template_name,
    trackers,
    steps_are_whole,
    no_steps,
    nothing_is_pickled,
    export_elsewhere,
    hub_of_uploads,
    two_evaluation_sets,
    two_batch_sizes,
    stream,
    resume_from_weights_alone,
    other_methods_options,
    options_of_one_value,
    identity_start,
    warmup_ignored,
    evaluation_without_data,
    answers,
    eval_steps_without_strategy,
    rank_of_the_launcher,
    long_timeout,
)
