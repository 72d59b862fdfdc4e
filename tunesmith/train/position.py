"""Where a run stands.  Plain numbers and names, as `resume.json` holds them; knows no tensor and imports no torch."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter


@dataclass
class Position:
    """Where a run stands after `step` optimizer steps.  Everything in it is plain JSON, floats exact."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

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
    parts: dict[str, Any] = field(default_factory=dict)
    """What the data was made of, each with a hash, so that it can be told what has changed."""
    base: str = ""
    """Fingerprint of the weights that the run began with; resuming with others is refused."""
    step_rows: int = 0
    """Rows of a step over all processes; with another number the place in the data would mean something else."""
    place: list[int] = field(default_factory=list)
    """Where a stream of rows stands behind the step; empty for rows that were prepared before."""
    compiled: bool = False
    """Whether the run computes with compiled functions, whose bits are others."""
    loss_kernel: str = ""
    """What computes the loss from hidden states; empty in checkpoints from before there was a choice."""
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
    is_unevaluated: bool = False
    """Whether an evaluation that was due at this very step is still to be made."""
    log_history: list[dict[str, Any]] = field(default_factory=list)


def read(text: str) -> Position:
    """The position that a file's JSON holds.  Raises pydantic's ValidationError for what has another type than was written, or
    a name that is not known here."""
    return TypeAdapter(Position).validate_json(text)


def changes(before: Position, now: Position) -> list[str]:
    """What of that on which a run's course depends, options aside, is not as it was."""
    found = []
    if before.fingerprint != now.fingerprint:
        parts = [name for name in now.parts if name in before.parts and before.parts[name] != now.parts[name]]
        if parts:
            found.append(f"the data is not what the run began with ({', '.join(parts)})")
        else:
            found.append("the data is not what the run began with")
    # Weights loaded in another type, on another device for one, cannot be compared.
    if before.base.partition(":")[0] == now.base.partition(":")[0] and before.base != now.base:
        found.append("the model's weights are not those that the run began with")
    if before.step_rows != now.step_rows:
        found.append(
            f"the run's steps had {before.step_rows} rows, now they have {now.step_rows}, as with another number of "
            "processes or another global_batch_size"
        )
    return found


def accepted(before: Position, now: Position) -> Position:
    """A run's place, with that on which its course depends as it is now."""
    return replace(before, fingerprint=now.fingerprint, parts=now.parts, base=now.base, step_rows=now.step_rows)
