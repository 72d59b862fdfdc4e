"""What an optimizer keeps about each weight, and needs while it moves them.  Knows torch's optimizers by what they do."""

import copy
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.compiler import set_stance
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

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
    # Longer than what is kept of a side, where gradients are projected.
    side = max(SIDE, 2 * max(group.get("rank", 0) for group in optimizer.param_groups))
    with unset_fake_temporarily():  # small weights are real also where the real ones are not: steps read numbers
        return _tried(optimizer, trained, {id(weight): _small(weight, side) for weight in trained})


def _tried(optimizer: Optimizer, trained: list[Tensor], small: dict[int, Tensor]) -> State:
    twin = _twin(optimizer, {**small, id(optimizer.state): defaultdict(dict)})
    with set_stance("force_eager"):  # what is compiled can't be watched
        twin.step()
        with Live() as live:
            twin.step()
    kept = sum(
        _scaled(kept, weight, small[id(weight)]) for weight in trained for kept in _tensors(twin, small[id(weight)])
    )
    tried, real = (sum(each.numel() for each in weights) for weights in (small.values(), trained))
    return State(kept, live.peak * real // tried)


def _twin(optimizer: Optimizer, instead: dict[int, Any]) -> Optimizer:
    """A copy of an optimizer with other weights and state: torch's own way to copy leaves out what a class adds."""
    held = {name: value for name, value in vars(optimizer).items() if name != "step"}  # which a schedule wraps
    twin: Optimizer = object.__new__(type(optimizer))
    vars(twin).update(copy.deepcopy(held, instead))
    return twin


def _small(weight: Tensor, longest: int) -> Tensor:
    device = "cpu" if isinstance(weight, FakeTensor) else weight.device
    made = torch.zeros([min(longest, side) for side in weight.shape], dtype=weight.dtype, device=device)
    made.grad = torch.zeros_like(made)
    return made.requires_grad_(True)


def _tensors(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    return [value for value in optimizer.state[weight].values() if isinstance(value, Tensor)]


def _scaled(kept: Tensor, weight: Tensor, small: Tensor) -> int:
    """Bytes of what is kept for the real weight: as long as that on every side that is as long as the small one's.  Of
    what has fewer sides as many numbers as a square of its size would have."""
    if kept.ndim == 0 or not small.numel():
        return _nbytes(kept)
    if kept.ndim >= small.ndim:
        sides = zip(reversed(kept.shape), reversed(small.shape), reversed(weight.shape), strict=False)
        grown = math.prod(real / mine for mine, its, real in sides if mine == its and mine)
        return round(_nbytes(kept) * grown)
    grown = (weight.numel() / small.numel()) ** (kept.ndim / small.ndim)
    return int(_nbytes(kept) * grown)


def _nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor, or of those that it is made of."""
    if is_traceable_wrapper_subclass(tensor):
        return sum(_nbytes(vars(tensor)[name]) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes
