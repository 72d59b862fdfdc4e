"""What may not go together about steps, batches, checkpoints and processes."""

import os
from collections.abc import Iterator

from tunesmith.config.rules.asked import Asked, Finding

STEPS = ("warmup_steps", "logging_steps", "save_steps", "eval_steps")

DAY_SECONDS = 24 * 60 * 60


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


def resume_from_weights_alone(asked: Asked) -> Iterator[Finding]:
    """A checkpoint without optimizer and random states can't be gone on from."""
    if asked.config.train.save_only_model and asked.config.train.resume_from_checkpoint:
        text = "leaves out what resume_from_checkpoint needs; leave one out"
        yield Finding("error", ("save_only_model", "resume_from_checkpoint"), text)


def eval_steps_without_strategy(asked: Asked) -> Iterator[Finding]:
    """Two options say when to evaluate."""
    strategy = asked.config.train.eval_strategy
    if asked.config.train.eval_steps and strategy in ("epoch", "no"):
        yield Finding("warning", ("eval_steps", "eval_strategy"), f"has no effect with eval_strategy {strategy}")


def delay_of_nothing(asked: Asked) -> Iterator[Finding]:
    """Only evaluations within a run can be left out; the one at its end is always made."""
    train, data = asked.config.train, asked.config.data
    within = train.eval_steps is not None or train.eval_strategy in ("steps", "epoch") or train.save_best_model
    if asked.wrote("eval_delay") and (data.val_size or data.eval_dataset) and not within:
        yield Finding("warning", ("eval_delay", "eval_steps"), "has no effect without eval_steps or eval_strategy")


def last_rows_of_no_batch(asked: Asked) -> Iterator[Finding]:
    """Where steps are filled by other means there are no last rows."""
    data = asked.config.data
    if not asked.wrote("dataloader_drop_last"):
        return
    if data.streaming:
        text = "has no effect with streaming, whose steps are always full"
        yield Finding("warning", ("dataloader_drop_last", "streaming"), text)
    elif data.batching == "token_budget":
        text = "has no effect with batching token_budget, whose steps are of about equally many tokens"
        yield Finding("warning", ("dataloader_drop_last", "batching"), text)


def best_without_evaluation(asked: Asked) -> Iterator[Finding]:
    """Which checkpoint is the best, only evaluation can tell."""
    train, data = asked.config.train, asked.config.data
    if asked.command != "train":
        return
    for name in ("save_best_model", "early_stopping_steps"):
        if not asked.wrote(name):
            continue
        if not (data.val_size or data.eval_dataset):
            yield Finding("error", (name, "eval_dataset"), "needs evaluation data: set val_size or eval_dataset")
        elif train.eval_strategy == "no":
            yield Finding("error", (name, "eval_strategy"), "needs evaluations, and eval_strategy is no")
        elif train.save_strategy == "no" and train.eval_steps is None and train.eval_strategy is None:
            text = "there is one evaluation, at the end; set eval_steps"
            yield Finding("warning", (name, "eval_steps"), text)


def best_of_nothing(asked: Asked) -> Iterator[Finding]:
    """What is the best is asked by two options alone."""
    train = asked.config.train
    if train.save_best_model or train.early_stopping_steps is not None:
        return
    for name in ("metric_for_best_model", "greater_is_better"):
        if asked.wrote(name):
            yield Finding("warning", (name,), "has no effect without save_best_model or early_stopping_steps")


def two_prices(asked: Asked) -> Iterator[Finding]:
    """Rent and electricity are two ways to pay for an hour."""
    train = asked.config.train
    if train.price is not None and train.price_per_kwh is not None:
        text = "says what an hour costs, and so does price_per_kwh; leave one out"
        yield Finding("error", ("price", "price_per_kwh"), text)
    if asked.wrote("watts") and train.price_per_kwh is None:
        yield Finding("warning", ("watts", "price_per_kwh"), "has no effect without price_per_kwh")


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
