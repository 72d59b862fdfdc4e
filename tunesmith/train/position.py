"""Where a run stands.  Plain numbers and names, as `resume.json` holds them; knows no tensor and imports no torch."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """Where a run stands after `step` optimizer steps.  Everything in it is plain JSON, floats exact."""

    step: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    loss_tokens: int = 0
    rows: int = 0
    loss_sum: float = 0.0
    """Sum of the losses of all steps, for the run's mean."""
    logged_loss_sum: float = 0.0
    """Sum of the losses since the last log row."""
    logged_steps: int = 0
    seconds: float = 0.0
    """Training time so far, over all starts."""
    fingerprint: str = ""
    """Hash of the data and its order; resuming with other data is refused."""
    step_rows: int = 0
    """Rows of a step over all processes; with another number the place in the data would mean something else."""
    place: list[int] = field(default_factory=list)
    """Where a stream of rows stands behind the step; empty for rows that were prepared before."""
    compiled: bool = False
    """Whether the run computes with compiled functions, whose bits are others."""
    evaluation: dict[str, float] = field(default_factory=dict)
    """What was found at this very step, so that a run that is killed behind its last step does not evaluate twice."""
    best_step: int = 0
    best_value: float | None = None
    """The best of what `metric_for_best_model` names; None: nothing was evaluated yet."""
    best_epoch: float = 0.0
    best_evaluation: dict[str, float] = field(default_factory=dict)
    """What was found at `best_step`."""
    unimproved: int = 0
    """Evaluations since then."""
    log_history: list[dict[str, Any]] = field(default_factory=list)
