"""One step of Adam on one weight, as the optimizers of this room share it.  Knows tensors; knows no optimizer."""

from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]
"""What an optimizer keeps about a weight: tensors, and plain values that JSON can hold."""


def direction(grad: Tensor, state: State, betas: tuple[float, float], eps: float) -> Tensor:
    """Adam's step for a learning rate of 1 (arXiv:1412.6980, algorithm 1): mean / (sqrt(square) + eps), both without bias.
    Moves `exp_avg`, `exp_avg_sq` and `step` of `state` on; they begin at zero, in the shape and format of `grad`."""
    if "exp_avg" not in state:
        state |= {"exp_avg": torch.zeros_like(grad), "exp_avg_sq": torch.zeros_like(grad)}
    state["step"] = step = state.get("step", 0) + 1
    state["exp_avg"].lerp_(grad, 1 - betas[0])
    state["exp_avg_sq"].mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    root = (state["exp_avg_sq"] / (1 - betas[1] ** step)).sqrt_().add_(eps)
    return (state["exp_avg"] / (1 - betas[0] ** step)).div_(root)


def decay(weight: Tensor, group: dict[str, Any]) -> None:
    """Shrink a weight by learning rate x weight decay (arXiv:1711.05101)."""
    if group["weight_decay"]:
        weight.mul_(1 - group["lr"] * group["weight_decay"])
