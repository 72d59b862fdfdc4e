"""Makes the course of the learning rate that the options name.  The formulas are Transformers'; knows no optimizer."""

import inspect
import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR, get_scheduler
from transformers.trainer_utils import SchedulerType

from tunesmith import catalog, log
from tunesmith.config.optim import OptimConfig
from tunesmith.log import OptionError

FOLLOWING = {SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY}
"""Schedules that follow the evaluation loss: they stay between evaluations."""

WITHOUT_WARMUP = {SchedulerType.CONSTANT, *FOLLOWING}
NEEDS: dict[SchedulerType, tuple[tuple[str, ...], ...]] = {
    SchedulerType.COSINE_WITH_MIN_LR: (("min_lr", "min_lr_rate"),),
    SchedulerType.COSINE_WARMUP_WITH_MIN_LR: (("min_lr", "min_lr_rate"),),
    SchedulerType.WARMUP_STABLE_DECAY: (("num_decay_steps",),),
    SchedulerType.GREEDY: (("min_lr",),),  # its own default, 1e-3, is above most rates
}
"""Arguments a schedule cannot do without; one of each inner tuple must be written."""

OURS = {"self", "verbose", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
"""Arguments of Transformers' functions that come from elsewhere than `lr_scheduler_kwargs`."""


class FollowsLoss(LRScheduler):
    """A schedule that moves at evaluations, by their loss; a step leaves the rates as they are."""

    def __init__(self, inner: ReduceLROnPlateau | GreedyLR):
        self.inner = inner
        self.optimizer = inner.optimizer

    def step(self, epoch: int | None = None) -> None:
        pass

    def follow(self, loss: float) -> None:
        """Judge what an evaluation found, and set the rates by it."""
        self.inner.step(loss)

    def get_last_lr(self) -> list[float | Tensor]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return dict(self.inner.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(dict(state_dict))


def build(optimizer: Optimizer, cfg: OptimConfig, total_steps: int) -> LRScheduler:
    """The schedule for a run of `total_steps` optimizer steps.  Call its `step()` once after each optimizer step; what
    its `state_dict()` holds can be written as JSON.

    Raises OptionError for an unknown schedule or argument, one that is missing, or a value it refuses.
    """
    name = find(cfg.lr_scheduler_type)
    _check_arguments(name, cfg)
    warmup = warmup_steps(cfg.warmup_steps, total_steps)
    if warmup >= total_steps and name not in WITHOUT_WARMUP:
        log.warn("warmup_steps", f"{warmup} steps of warmup in a run of {total_steps}: the peak is never passed")
    try:
        if name in FOLLOWING:
            return FollowsLoss(TYPE_TO_SCHEDULER_FUNCTION[name](optimizer, **cfg.lr_scheduler_kwargs))
        return get_scheduler(
            name,
            optimizer,
            num_warmup_steps=warmup,
            num_training_steps=total_steps,
            scheduler_specific_kwargs=dict(cfg.lr_scheduler_kwargs),
        )
    except (TypeError, ValueError) as refusal:
        raise OptionError(f"lr_scheduler_kwargs: {name.value} refuses its arguments: {refusal}") from refusal


def find(written: str) -> SchedulerType:
    """The schedule of that name, whatever its case.  Raises OptionError with the list of names."""
    return SchedulerType(catalog.check("schedule", written))


def warmup_steps(written: float, total_steps: int) -> int:
    """Steps of warmup: a number below 1 is a fraction of the run, rounded up as Transformers does."""
    return math.ceil(written * total_steps) if written < 1 else int(written)


def _check_arguments(name: SchedulerType, cfg: OptimConfig) -> None:
    made_by = {SchedulerType.REDUCE_ON_PLATEAU: ReduceLROnPlateau.__init__, SchedulerType.GREEDY: GreedyLR.__init__}
    signature = inspect.signature(made_by.get(name, TYPE_TO_SCHEDULER_FUNCTION[name]))
    accepted = sorted(signature.parameters.keys() - OURS)
    problems = []
    for argument in cfg.lr_scheduler_kwargs:
        if argument not in accepted:
            hint = catalog.did_you_mean(argument, accepted)
            takes = ", ".join(accepted) or "none"
            problems.append(f"lr_scheduler_kwargs: {name.value} has no argument '{argument}'{hint}; it takes {takes}")
    for choice in NEEDS.get(name, ()):
        if not cfg.lr_scheduler_kwargs.keys() & set(choice):
            problems.append(f"lr_scheduler_kwargs: the schedule {name.value} needs {' or '.join(choice)}")
    if problems:
        raise OptionError(*problems)
