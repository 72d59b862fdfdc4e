"""What differs between stages: how a row is encoded, and the objective.  Everything else is the same loop."""

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.train.objectives import NextToken, Objective


@dataclass(frozen=True, slots=True)
class Stage:
    """`rows`: what a row is, as `data.pipeline` names it; `objective`: builds the cost of a batch."""

    rows: str
    objective: Callable[[], Objective]
    curves: tuple[str, ...] = ("loss",)
    """Metrics the loss picture draws."""


pt = Stage(rows="text", objective=NextToken)
sft = Stage(rows="conversation", objective=NextToken)
