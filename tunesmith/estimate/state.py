"""What an optimizer keeps about each weight, and needs while it moves them.  Knows torch's optimizers by what they do."""

import copy
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunesmith.estimate.live import Live

SIDE = 64
"""Longest side of the small weights that are tried in the place of the real ones."""


@dataclass(frozen=True, slots=True)
class State:
    """Bytes.  `kept`: between steps; `moving`: the most during a step, beyond that."""

    kept: int
    moving: int


def state(optimizer: Optimizer) -> State:
    """Learned from a copy of the optimizer that moves small weights twice; nothing happens to the real ones."""
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    small = {id(weight): _small(weight) for weight in trained}
    twin: Optimizer = copy.deepcopy(optimizer, {**small, id(optimizer.state): defaultdict(dict)})
    twin.step()
    with Live() as live:
        twin.step()
    kept = sum(
        _scaled(kept, weight, small[id(weight)]) for weight in trained for kept in _tensors(twin, small[id(weight)])
    )
    tried, real = (sum(each.numel() for each in weights) for weights in (small.values(), trained))
    return State(kept, live.peak * real // tried)


def _small(weight: Tensor) -> Tensor:
    made = torch.zeros([min(SIDE, side) for side in weight.shape], dtype=weight.dtype, device=weight.device)
    made.grad = torch.zeros_like(made)
    return made.requires_grad_(True)


def _tensors(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    return [value for value in optimizer.state[weight].values() if isinstance(value, Tensor)]


def _scaled(kept: Tensor, weight: Tensor, small: Tensor) -> int:
    """Bytes of what is kept for the real weight: as many numbers as that has, or, for one number a row or column, as many
    as a square of its size would have."""
    if kept.ndim == 0 or not small.numel():
        return kept.nbytes
    grown = (weight.numel() / small.numel()) ** (kept.ndim / small.ndim)
    return int(kept.nbytes * grown)
