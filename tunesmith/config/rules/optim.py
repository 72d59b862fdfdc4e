"""What may not go together about losses, optimizers and schedules."""

from collections.abc import Iterator

from tunesmith.config.rules.asked import Asked, Finding

OPTIMIZERS_OF = {"galore": ("galore_adamw", "galore_adafactor"), "apollo": ("apollo_adamw",), "badam": ("badam",)}
"""How options begin -> the optimizers that they are of."""

SCHEDULE_FREE = ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd")

FOLLOWING = ("reduce_lr_on_plateau", "greedy")
"""Schedules that follow the evaluation loss."""


def losses(asked: Asked) -> Iterator[Finding]:
    """A loss is asked for once, and has what it compares with."""
    optim, stage = asked.config.optim, asked.config.train.stage
    if optim.loss == "cross_entropy":
        return
    if optim.label_smoothing_factor:
        text = f"goes with loss cross_entropy only, not with {optim.loss}; leave one out"
        yield Finding("error", ("label_smoothing_factor", "loss"), text)
    if stage not in ("pt", "sft"):
        yield Finding("error", ("loss", "stage"), f"{optim.loss} is of the stages pt and sft, not of {stage}")
    start = asked.config.tuning.lora_init
    if (
        optim.loss == "asft"
        and asked.config.tuning.finetuning_type in ("lora", "qlora")
        and start in ("pissa", "olora", "loftq")
    ):
        text = f"asft compares with the model without its adapter, which lora_init {start} changes; leave one out"
        yield Finding("error", ("loss", "lora_init"), text)


def optimizers(asked: Asked) -> Iterator[Finding]:
    """Options of another optimizer are probably leftovers; some optimizers are made for whole weights, or rates that stay."""
    optim, names = asked.config.optim, OPTIMIZERS_OF
    for beginning, owners in names.items():
        for name in asked.config.optim.model_fields_set:
            if name.startswith(f"{beginning}_") and asked.wrote(name) and optim.optim not in owners:
                text = f"has no effect unless optim is {' or '.join(owners)}"
                yield Finding("warning", (name, "optim"), text)
    projected = (*names["galore"], *names["apollo"])
    if asked.wrote("optim_target_modules"):
        if optim.optim not in projected:
            text = f"has no effect unless optim is {' or '.join(projected)}"
            yield Finding("warning", ("optim_target_modules", "optim"), text)
        for name in ("galore_target", "apollo_target"):
            if asked.wrote(name):
                yield Finding(
                    "error", (name, "optim_target_modules"), "says the same as optim_target_modules; leave one out"
                )
    method = asked.config.tuning.finetuning_type
    if optim.optim in (*projected, "badam") and method in ("lora", "qlora", "oft"):
        text = f"{optim.optim} is for whole weights, not for finetuning_type {method}; choose full or freeze"
        yield Finding("error", ("optim", "finetuning_type"), text)
    if optim.optim == "badam" and asked.config.model.cuda_graphs:
        text = "records what is trained, which badam changes; leave one out"
        yield Finding("error", ("cuda_graphs", "optim"), text)
    if optim.optim in SCHEDULE_FREE and asked.config.train.save_best_model:
        text = f"a model of {optim.optim} is the average of its whole run so far, not one step's; leave one out"
        yield Finding("error", ("save_best_model", "optim"), text)
    if optim.optim in SCHEDULE_FREE and optim.lr_scheduler_type not in ("constant", "constant_with_warmup"):
        text = f"{optim.lr_scheduler_type} lowers a rate that {optim.optim} wants to stay; constant_with_warmup is meant for it"
        yield Finding("warning", ("lr_scheduler_type", "optim"), text)


def followed_loss(asked: Asked) -> Iterator[Finding]:
    """A schedule that follows the evaluation loss needs one while it trains."""
    config, name = asked.config, asked.config.optim.lr_scheduler_type
    if name not in FOLLOWING or asked.command != "train":
        return
    strategy = config.train.eval_strategy or ("steps" if config.train.eval_steps else "no")
    if strategy == "no" or not (config.data.val_size or config.data.eval_dataset):
        text = f"{name} follows the evaluation loss; set eval_steps, and val_size or eval_dataset"
        yield Finding("error", ("lr_scheduler_type",), text)
