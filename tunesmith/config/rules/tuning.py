"""What may not go together about what is trained."""

from collections.abc import Iterator

from tunesmith import catalog
from tunesmith.config.rules.asked import Asked, Finding

LORA = ("lora", "qlora")

LORA_ONLY = (
    "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "lora_init", "pissa_iter", "use_rslora", "use_dora",
    "create_new_adapter", "additional_target", "loraplus_lr_embedding",
)  # fmt: skip

FREEZE_ONLY = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")

WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")


def other_methods_options(asked: Asked) -> Iterator[Finding]:
    """An option of another tuning method is probably a leftover."""
    method = asked.config.tuning.finetuning_type
    for owners, names in ((LORA, LORA_ONLY), (("freeze",), FREEZE_ONLY)):
        for name in names:
            if asked.wrote(name) and method in catalog.names("tuning") and method not in owners:
                text = f"has no effect with finetuning_type {method}"
                yield Finding("warning", (name, "finetuning_type"), text)
    if method not in LORA and asked.config.model.adapter_name_or_path and asked.command == "train":
        text = f"adapters are merged into the model before finetuning_type {method} trains it"
        yield Finding("note", ("adapter_name_or_path", "finetuning_type"), text)


def random_start(asked: Asked) -> Iterator[Finding]:
    """Weights that begin at random are trained and saved whole, or nothing could be made of what was learned beside them."""
    cfg = asked.config
    if not cfg.model.train_from_scratch:
        return
    if asked.command != "train":
        yield Finding("warning", ("train_from_scratch",), f"has no effect in `{asked.command}`, which reads weights")
    elif cfg.tuning.finetuning_type != "full":
        text = "random weights are trained and saved whole; write finetuning_type: full"
        yield Finding("error", ("train_from_scratch", "finetuning_type"), text)
    elif cfg.model.adapter_name_or_path:
        text = "adapters belong to weights, which are not read; leave adapter_name_or_path out"
        yield Finding("error", ("train_from_scratch", "adapter_name_or_path"), text)


def rates_of_lora(asked: Asked) -> Iterator[Finding]:
    """Another rate than the one that was meant is worse than none."""
    method = asked.config.tuning.finetuning_type
    for name in ("lora_learning_rate", "loraplus_lr_ratio"):
        if asked.wrote(name) and method in catalog.names("tuning") and method not in LORA:
            text = f"finetuning_type {method} trains no LoRA weights; write learning_rate"
            yield Finding("error", (name, "finetuning_type"), text)


def options_of_one_value(asked: Asked) -> Iterator[Finding]:
    """Options that only some value of another one reads."""
    if asked.wrote("pissa_iter") and asked.config.tuning.lora_init != "pissa":
        yield Finding("warning", ("pissa_iter", "lora_init"), "has no effect unless lora_init is pissa")
    if asked.wrote("loraplus_lr_embedding") and not asked.config.optim.loraplus_lr_ratio:
        yield Finding("warning", ("loraplus_lr_embedding",), "has no effect without loraplus_lr_ratio")
    for name in ("eaft", "asft"):
        if asked.wrote(f"{name}_alpha") and asked.config.optim.loss != name:
            yield Finding("warning", (f"{name}_alpha", "loss"), f"has no effect unless loss is {name}")
    if asked.wrote("save_steps") and asked.config.train.save_strategy != "steps":
        text = f"has no effect with save_strategy {asked.config.train.save_strategy}"
        yield Finding("warning", ("save_steps", "save_strategy"), text)
    if asked.wrote("sample_strategy") and not asked.config.data.max_samples:
        yield Finding("warning", ("sample_strategy",), "has no effect without max_samples")
    if asked.wrote("buffer_size") and not asked.config.data.streaming:
        yield Finding("warning", ("buffer_size", "streaming"), "has no effect without streaming")


def dropout_in_attention(asked: Asked) -> Iterator[Finding]:
    """FlexAttention computes no dropout; most models have one in their attention."""
    if asked.config.model.dropout_rate and asked.config.model.flash_attn == "flex":
        text = "FlexAttention has no dropout; choose another flash_attn"
        yield Finding("error", ("dropout_rate", "flash_attn"), text)


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
