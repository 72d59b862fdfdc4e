"""Steps: batches in, moved weights out.  Knows objectives and devices; knows no stage, no file and no option's origin."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tunesmith.data.batching.batches import Window
from tunesmith.log import RunError
from tunesmith.train.objectives import Objective
from tunesmith.train.passes import Passes
from tunesmith.train.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step did, over all processes."""

    loss: float
    """Cost per unit of weight: the mean over the step's trained tokens."""
    grad_norm: float
    """Length of the gradient before it was clipped."""
    learning_rate: float
    """The rate this step was made with."""
    tokens: int
    """Tokens without padding."""
    padded_tokens: int
    """Tokens with padding: what the device worked on."""
    loss_tokens: int
    """Trained tokens."""
    rows: int
    stop: int | None
    """The signal that asked some process to stop."""


class NonFinite(RunError):
    """A loss or gradient that is no number.  `rows`: files and rows of this process's samples in the step."""

    def __init__(self, what: str, rows: list[str]):
        super().__init__(what)
        self.rows = rows


def fit(
    passes: Passes,
    policy: nn.Module,
    objective: Objective,
    windows: Iterable[Window],
    optimizer: Optimizer,
    schedule: LRScheduler,
    runtime: Runtime,
    max_grad_norm: float,
    asked_to_stop: Callable[[], int | None],
    on_step: Callable[[Step], bool],
) -> None:
    """Train until the windows run out or `on_step(step)` returns True.  `passes` compute micro-batches by `policy` and `objective`.

    The objective returns sums; they are divided once, by the weight of the whole window over all micro-batches and all
    processes, so 1 x 16, 2 x 8 and 16 x 1 rows are the same step.  `asked_to_stop` is asked on every process; when one
    names a signal, all learn it in the same step (`step.stop`).  Raises NonFinite before any weight has moved.
    """
    policy.train()
    trained = [p for p in policy.parameters() if p.requires_grad]
    for window in windows:
        weight, tokens, padded, loss_tokens, rows = runtime.sums(
            sum(objective.weight(batch) for batch in window.batches),
            sum(batch.tokens for batch in window.batches),
            sum(batch.padded_tokens for batch in window.batches),
            sum(batch.loss_tokens for batch in window.batches),
            sum(row >= 0 for batch in window.batches for row in batch.rows),
        )
        summed = backward(passes, window, runtime, weight)
        clipped = runtime.clip(trained, max_grad_norm)
        # Up to here the host only queues work.  It waits for the device once a step: before a weight moves it must know
        # that everything is a number, and the device stands still no longer than it takes to queue the optimizer.
        cost, stop, norm = runtime.read(summed, asked_to_stop(), clipped)
        _refuse_non_finite(cost, norm, policy, window, runtime)
        learning_rate = float(schedule.get_last_lr()[0])
        runtime.step(optimizer)
        schedule.step()
        # Gone where they may be: the memory serves the next step's activations until gradients come, and nothing is added to zeros.
        optimizer.zero_grad(set_to_none=not passes.keeps_gradients)
        done = Step(
            loss=cost / weight,
            grad_norm=norm,
            learning_rate=learning_rate,
            tokens=int(tokens),
            padded_tokens=int(padded),
            loss_tokens=int(loss_tokens),
            rows=int(rows),
            stop=stop,
        )
        if on_step(done):
            return


def backward(passes: Passes, window: Window, runtime: Runtime, weight: float) -> Tensor:
    """Accumulate the window's gradients, divided by `weight`; returns this process's summed cost, shape [], unread.

    DDP averages gradients over processes, so each one multiplies by their number to get the sum.
    """
    total: Tensor | None = None
    for position, batch in enumerate(window.batches, start=1):
        cost = passes(batch, runtime.world_size / weight, sync=position == len(window.batches))
        total = cost if total is None else total + cost
    assert total is not None, "a window holds at least one micro-batch"
    return total


def _refuse_non_finite(cost: float, norm: float, policy: nn.Module, window: Window, runtime: Runtime) -> None:
    """Raise NonFinite when the loss is no number, or a gradient is none (which fp16's scaler skips by itself)."""
    if math.isfinite(cost) and (math.isfinite(norm) or runtime.scales):
        return
    rows = [window.where(row) for batch in window.batches for row in batch.rows if row >= 0]
    if not math.isfinite(cost):
        raise NonFinite(f"the loss is {cost}", rows)
    bad = [name for name, p in policy.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    raise NonFinite(f"the gradient is {norm}, first in {bad[0]}" if bad else f"the gradient's length is {norm}", rows)
