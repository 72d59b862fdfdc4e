"""The largest micro-batch, tried before the first step: memory runs out at once or not at all.  Knows a policy and its device;
knows no file and no step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from tunesmith.data.sample import Batch
from tunesmith.estimate.free import free_bytes
from tunesmith.estimate.memory import Memory
from tunesmith.estimate.state import State, state
from tunesmith.models.predict import Predictor
from tunesmith.train.objectives import Objective
from tunesmith.train.runtime import Runtime

NEAR = 0.5
"""Share of the free memory from which on a step is tried on a CPU, where that costs as long as a micro-batch does."""

SPARE = 0.125
"""Share of a step's memory that must be left on a CPU beside what is tried: there, memory that was freed is kept in pieces, and
a larger piece may fit into none of them."""


def spare_bytes(needed: Memory | None, device: torch.device) -> int:
    """What must be left beside a step that is tried: nothing on a GPU, whose memory is given back whole."""
    return 0 if needed is None or device.type != "cpu" else int(SPARE * needed.to_come)


def is_due(needed: Memory | None, device: torch.device) -> bool:
    """Always on a GPU; on a CPU when a step is said to take more than NEAR of what is free.  No clock decides."""
    if device.type != "cpu":
        return True
    free = free_bytes(device)
    return needed is not None and free is not None and needed.to_come > NEAR * free


def try_step(
    policy: Predictor, objective: Objective, batch: Batch, optimizer: Optimizer, runtime: Runtime, spare: int = 0
) -> None:
    """Forward and backward with `batch`, beside as much memory as gradients and the optimizer's state will take.  With
    `spare` bytes a second time, beside those, since memory is in other pieces after the first.

    Weights, optimizer, random states and gradients are afterwards as they were.  Raises whatever says that memory ran out.
    """
    kept = state(optimizer)
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    assert all(weight.grad is None for weight in trained), "tried before anything is trained"
    for beside in (0, spare) if spare else (0,):
        with _nothing_left(runtime):
            _pass(policy, objective, batch, trained, kept, beside, runtime)


def _pass(
    policy: Predictor,
    objective: Objective,
    batch: Batch,
    trained: list[nn.Parameter],
    kept: State,
    beside: int,
    runtime: Runtime,
) -> None:
    try:
        held = torch.empty(kept.kept + beside, dtype=torch.uint8, device=runtime.device)
        for weight in trained:
            weight.grad = torch.zeros_like(weight)
        with runtime.autocast():
            cost = objective(policy, runtime.to_device(batch)).total
        cost.backward()
        del cost
        torch.empty(kept.moving, dtype=torch.uint8, device=runtime.device)
        del held
    finally:
        for weight in trained:
            weight.grad = None


@torch.no_grad()
def try_evaluation(policy: Predictor, objective: Objective, batch: Batch, runtime: Runtime) -> None:
    """The same for a micro-batch that is only evaluated."""
    was_training = policy.training
    policy.eval()
    try:
        with _nothing_left(runtime), runtime.autocast():
            objective(policy, runtime.to_device(batch))
    finally:
        policy.train(was_training)


@contextmanager
def _nothing_left(runtime: Runtime) -> Iterator[None]:
    on_gpu = runtime.device.type == "cuda"
    with torch.random.fork_rng(devices=[runtime.device] if on_gpu else []):
        yield
    if on_gpu:
        torch.cuda.empty_cache()
