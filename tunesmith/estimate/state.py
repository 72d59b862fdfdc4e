"""What an optimizer keeps about each weight, and needs while it moves them.  Knows torch's optimizers by what they do."""

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.compiler import set_stance
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_iter

from tunesmith.estimate.live import Live

SIDE = 64
"""Longest side of the small weights that are tried in the place of the real ones."""

FEWEST = SIDE * SIDE
"""Numbers from which on some optimizers keep 8 bits each."""


@dataclass(frozen=True, slots=True)
class State:
    """Bytes.  `kept`: between steps; `moving`: the most during a step, beyond that."""

    kept: int
    moving: int


def state(optimizer: Optimizer) -> State:
    """Learned from a copy of the optimizer that moves small weights; nothing happens to the real ones."""
    with unset_fake_temporarily():  # small weights are real also where the real ones are not: steps read numbers
        # Longer than what projections keep of a side.
        small = {
            id(weight): _small(weight, max(SIDE, 2 * group.get("rank", 0)))
            for group in optimizer.param_groups
            for weight in group["params"]
        }
        return _tried(optimizer, _twin(optimizer, {**small, id(optimizer.state): defaultdict(dict)}), small)


def _tried(optimizer: Optimizer, twin: Optimizer, small: dict[int, Tensor]) -> State:
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    largest = max(trained, key=Tensor.numel)
    with set_stance("force_eager"):  # what is compiled can't be watched
        twin.step()
        with Live() as together:
            twin.step()
        kept = _kept(optimizer, twin, small)
        for weight in trained:
            if weight is not largest:
                small[id(weight)].grad = None
        with Live() as alone:
            twin.step()
    real, tried = (sum(each.numel() for each in weights) for weights in (trained, small.values()))
    one = alone.peak * largest.numel() // small[id(largest)].numel()
    return State(kept, max(together.peak * real // tried, one))  # all weights at once, or one by one


def _kept(optimizer: Optimizer, twin: Optimizer, small: dict[int, Tensor]) -> int:
    """Bytes; what the optimizer itself holds is the same for all weights, such as tables of what 8 bits mean."""
    held = [value for name, value in vars(twin).items() if name not in ("state", "param_groups", "defaults")]
    own = {id(value): value for value in tree_iter(held) if isinstance(value, Tensor)}
    kept, shared = 0, dict[int, int]()
    for group in optimizer.param_groups:
        for weight in group["params"]:
            for each in _tensors(twin, small[id(weight)]):
                if id(each) in own:
                    shared[id(each)] = _nbytes(each)
                else:
                    kept += _scaled(each, weight, small[id(weight)], group.get("rank", 0))
    return kept + sum(shared.values())


def _twin(optimizer: Optimizer, instead: dict[int, Any]) -> Optimizer:
    """A copy of an optimizer with other weights and state: torch's own way to copy leaves out what a class adds."""
    held = {name: value for name, value in vars(optimizer).items() if name != "step"}  # which a schedule wraps
    twin: Optimizer = object.__new__(type(optimizer))
    vars(twin).update(copy.deepcopy(held, instead))
    return twin


def _small(weight: Tensor, longest: int) -> Tensor:
    device = "cpu" if isinstance(weight, FakeTensor) else weight.device
    made = torch.zeros(_sides(weight.shape, longest), dtype=weight.dtype, device=device)
    made.grad = torch.zeros_like(made)
    return made.requires_grad_(True)


def _sides(real: Sequence[int], longest: int) -> list[int]:
    """Those of a small weight: what is long stays longer than what is wide, and as many numbers as FEWEST are there where
    the real weight has them."""
    most = max(real, default=0)
    sides = [min(longest + SIDE * (side == most), side) for side in real]
    while (lacking := -(-min(math.prod(real), FEWEST) // max(math.prod(sides), 1))) > 1:
        wide = max(range(len(real)), key=lambda number: real[number] - sides[number])
        sides[wide] = min(real[wide], sides[wide] * lacking)
    return sides


def _tensors(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    return [value for value in optimizer.state[weight].values() if isinstance(value, Tensor)]


def _scaled(kept: Tensor, weight: Tensor, small: Tensor, rank: int) -> int:
    """Bytes of what is kept for the real weight: as long as that on every side that is as long as the small one's.  What has
    no such side, nor is a mean (1) or a projection (`rank`), is kept of blocks of numbers."""
    if kept.numel() <= 1 or not small.numel():
        return _nbytes(kept)
    if not {*small.shape, 1, rank} & set(kept.shape):
        return round(_nbytes(kept) * weight.numel() / small.numel())
    if kept.ndim >= small.ndim:
        sides = zip(reversed(kept.shape), reversed(small.shape), reversed(weight.shape), strict=False)
        grown = math.prod(real / its for mine, its, real in sides if mine == its)
    else:
        longer = dict(zip(small.shape, weight.shape, strict=True))
        grown = math.prod(longer.get(mine, mine) / mine for mine in kept.shape)
    return round(_nbytes(kept) * grown)


def _nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor, or of those that it is made of."""
    if is_traceable_wrapper_subclass(tensor):
        return sum(_nbytes(vars(tensor)[name]) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes
