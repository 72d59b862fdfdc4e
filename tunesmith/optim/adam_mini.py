"""Adam-mini: one squared gradient for each block of a weight instead of each entry.  Knows tensors; which blocks a weight has
is said by its group."""

from typing import Any

import torch
from torch.optim import Optimizer

from tunesmith.optim.adam import decay

EACH, ROWS = 0, -1
"""`blocks` of a group: each entry is its own, as in Adam; each row is one; another number: so many blocks of rows."""


class AdamMini(Optimizer):
    """Adam with a mean squared gradient per block (arXiv:2406.16793, algorithm 1), so its state is little more than half of
    AdamW's."""

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        blocks: int = ROWS,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "blocks": blocks})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state, shape = self.state[weight], _blocks(weight.shape, group["blocks"])
                grad = weight.grad.reshape(shape)
                square = grad.square().mean(1, keepdim=True)
                if "exp_avg" not in state:
                    state |= {"step": 0, "exp_avg": torch.zeros_like(weight), "square": torch.zeros_like(square)}
                state["step"] = step = state["step"] + 1
                state["exp_avg"].lerp_(weight.grad, 1 - beta1)
                state["square"].lerp_(square, 1 - beta2)
                root = (state["square"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
                moved = (state["exp_avg"].reshape(shape) / root).div_(1 - beta1**step)
                decay(weight, group)
                weight.add_(moved.view_as(weight), alpha=-group["lr"])


def _blocks(shape: torch.Size, blocks: int) -> tuple[int, int]:
    """`(blocks, entries of each)` of a weight."""
    entries = shape.numel()
    if blocks == EACH or (blocks == ROWS and len(shape) < 2):
        return entries, 1
    count = shape[0] if blocks == ROWS else blocks
    # Where a smaller weight stands for the real one, its rows may not fall into so many blocks.
    return (count, entries // count) if shape[0] % count == 0 else (1, entries)
