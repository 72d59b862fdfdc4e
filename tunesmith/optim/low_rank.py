"""GaLore and APOLLO: optimizers that keep their state about a projection of each matrix's gradient.  Knows tensors; knows no
model.

A group whose `rank` is 0 is moved as AdamW or Adafactor moves it.  Everything that a step depends on lies in groups and state,
as tensors and plain values, so that a checkpoint holds it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunesmith.optim.adam import State, decay, direction

SIDES = ("std", "reverse_std", "right", "left", "full")
"""`proj_type`: which side of a matrix is projected; `std` the longer, `reverse_std` the shorter, `full` both."""

GROWTH = 1.01
"""How much longer than the step before an APOLLO step may be, as in Fira (arXiv:2410.01623)."""


def side_of(shape: torch.Size, proj_type: str) -> str:
    """`right`: the columns of such a matrix are projected, `left`: its rows; or `full`."""
    tall = shape[0] >= shape[1]
    if proj_type in ("std", "reverse_std"):
        return "right" if tall == (proj_type == "std") else "left"
    return proj_type


class GaLoreAdamW(Optimizer):
    """AdamW in the space of each gradient's strongest directions (GaLore, arXiv:2403.03507, algorithm 2).

    The directions are the first `rank` singular vectors of the gradient, taken anew every `update_interval` steps; the step
    is brought back and multiplied by `scale`.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rank: int = 0,
        update_interval: int = 200,
        scale: float = 2.0,
        proj_type: str = "std",
    ):
        _check(rank, update_interval, proj_type, SIDES)
        settings = {"rank": rank, "update_interval": update_interval, "scale": scale, "proj_type": proj_type}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay} | settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                small = project(weight.grad, state, group) if group["rank"] else weight.grad
                moved = self._moved(small, state, group)
                if group["rank"]:
                    moved = back(moved, state, group, weight.shape).mul_(group["scale"])
                decay(weight, group)
                weight.add_(moved, alpha=-group["lr"])

    def _moved(self, grad: Tensor, state: State, group: dict[str, Any]) -> Tensor:
        return direction(grad, state, group["betas"], group["eps"])


class GaLoreAdafactor(GaLoreAdamW):
    """Adafactor (arXiv:1804.04235, algorithm 4) in that space: of the squared gradient only means over rows and columns are
    kept, and no step is longer than 1 per entry.  There is no mean gradient; the learning rate is the option's."""

    def __init__(
        self,
        params: Any,
        lr: float,
        weight_decay: float = 0.0,
        beta2_decay: float = -0.8,
        rank: int = 0,
        update_interval: int = 200,
        scale: float = 2.0,
        proj_type: str = "std",
    ):
        super().__init__(params, lr, (0.0, 0.0), 1e-30, weight_decay, rank, update_interval, scale, proj_type)
        for group in self.param_groups:
            group["beta2_decay"] = beta2_decay

    def _moved(self, grad: Tensor, state: State, group: dict[str, Any]) -> Tensor:
        state["step"] = step = state.get("step", 0) + 1
        beta2 = 1 - step ** group["beta2_decay"]
        square = grad.float().square().add_(group["eps"])
        if grad.ndim < 2:
            root = _mean_of(state, "square", square, beta2).sqrt()
        else:
            rows, columns = (_mean_of(state, name, square.mean(side, keepdim=True), beta2)
                             for name, side in (("rows", 1), ("columns", 0)))  # fmt: skip
            root = (rows / rows.mean() * columns).sqrt_()
        moved = grad / root
        return moved.div_(moved.square().mean().sqrt().clamp_(min=1.0)).to(grad.dtype)


class APOLLOAdamW(Optimizer):
    """AdamW whose step is the gradient itself, scaled (APOLLO, arXiv:2412.05270, algorithm 1).

    How much a channel is scaled, or with `scale_type` `tensor` the whole matrix, is how much Adam would scale it in a random
    projection of `rank` (or, with `proj` `svd`, in the strongest directions), renewed every `update_interval` steps; times
    sqrt(`scale`).  A step grows by 1% at the most from one to the next; `scale_front` counts `scale` in before that.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rank: int = 0,
        update_interval: int = 200,
        scale: float = 32.0,
        proj: str = "random",
        proj_type: str = "std",
        scale_type: str = "channel",
        scale_front: bool = False,
        seed: int = 0,
    ):
        _check(rank, update_interval, proj_type, ("std", "right", "left"))
        for name, value, known in (
            ("proj", proj, ("svd", "random")),
            ("scale_type", scale_type, ("channel", "tensor")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        settings = {
            "rank": rank, "update_interval": update_interval, "scale": scale, "proj": proj, "proj_type": proj_type,
            "scale_type": scale_type, "scale_front": scale_front, "seed": seed,
        }  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay} | settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        number = 0
        for group in self.param_groups:
            for weight in group["params"]:
                number += 1
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if group["rank"]:
                    moved = self._scaled(weight.grad, state, group, number)
                else:
                    moved = direction(weight.grad, state, group["betas"], group["eps"])
                decay(weight, group)
                weight.add_(moved, alpha=-group["lr"])

    def _scaled(self, grad: Tensor, state: State, group: dict[str, Any], number: int) -> Tensor:
        small = project(grad, state, group) if group["proj"] == "svd" else _at_random(grad, state, group, number)
        wanted = direction(small, state, group["betas"], group["eps"])
        if group["scale_type"] == "channel":
            along = 1 if side_of(grad.shape, group["proj_type"]) == "right" else 0
            factor = wanted.norm(dim=along, keepdim=True) / (small.norm(dim=along, keepdim=True) + 1e-8)
        else:
            factor = wanted.norm() / (small.norm() + 1e-8)
        front = group["scale"] ** 0.5
        moved = grad * factor
        if group["scale_front"]:
            moved.mul_(front)
        length = moved.norm()
        if "length" in state:
            shorter = (length / (state["length"] + 1e-8)).clamp_(min=GROWTH) / GROWTH
            moved, length = moved.div_(shorter), length / shorter
        state["length"] = length
        return moved if group["scale_front"] else moved.mul_(front)


def project(grad: Tensor, state: State, group: dict[str, Any]) -> Tensor:
    """The gradient in its strongest directions, which are kept in `state` and taken anew when it is time."""
    side = side_of(grad.shape, group["proj_type"])
    if state.get("step", 0) % group["update_interval"] == 0:
        left, _, right = torch.linalg.svd(grad.float(), full_matrices=False)
        if side in ("left", "full"):
            state["left"] = left[:, : group["rank"]].to(grad.dtype).contiguous()
        if side in ("right", "full"):
            state["right"] = right[: group["rank"]].to(grad.dtype).contiguous()
    if side in ("left", "full"):
        grad = state["left"].t() @ grad
    return grad @ state["right"].t() if side in ("right", "full") else grad


def back(small: Tensor, state: State, group: dict[str, Any], shape: torch.Size) -> Tensor:
    """What was projected, in the matrix's own space again."""
    side = side_of(shape, group["proj_type"])
    if side in ("left", "full"):
        small = state["left"] @ small
    return small @ state["right"] if side in ("right", "full") else small


def _at_random(grad: Tensor, state: State, group: dict[str, Any], number: int) -> Tensor:
    """The gradient in random directions: numbers of variance 1 / rank, drawn again in each step from the same seed."""
    renewed = state.get("step", 0) // group["update_interval"]
    random = torch.Generator(grad.device).manual_seed(group["seed"] + number * 1_000_003 + renewed * 7_919)
    rank = group["rank"]
    right = side_of(grad.shape, group["proj_type"]) == "right"
    shape = (grad.shape[1], rank) if right else (rank, grad.shape[0])
    drawn = torch.randn(shape, generator=random, device=grad.device, dtype=torch.float32).div_(rank**0.5)
    return grad @ drawn.to(grad.dtype) if right else drawn.to(grad.dtype) @ grad


def _mean_of(state: State, name: str, now: Tensor, beta: float) -> Tensor:
    """A running mean that is kept in `state`."""
    if name not in state:
        state[name] = torch.zeros_like(now)
    mean: Tensor = state[name].lerp_(now, 1 - beta)
    return mean


def _check(rank: int, update_interval: int, proj_type: str, known: tuple[str, ...]) -> None:
    if rank < 0 or update_interval < 1:
        raise ValueError(f"rank and update_interval must be above 0, got {rank} and {update_interval}")
    if proj_type not in known:
        raise ValueError(f"proj_type must be one of {', '.join(known)}, got {proj_type!r}")
