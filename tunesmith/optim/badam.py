"""BAdam: Adam on one block of weights after another.  Knows tensors; which block a weight belongs to is said by its group."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from tunesmith import log
from tunesmith.optim.adam import decay, direction

NEVER = -1
"""`block` of weights that are never moved."""

RATIO_INTERVAL = 100
"""Steps in which `ratio` moves the same entries."""

SMALL = 100
"""Entries up to which `ratio` moves a weight as a whole."""


class BAdam(Optimizer):
    """AdamW on one block at a time (arXiv:2404.02827, algorithm 1); a block begins with no state.

    `layer`: a block is a decoder layer, and another one comes every `switch_interval` steps (-1: never), in the order of
    `switch_mode`, from `start_block` on.  `ratio`: of each weight a share `update_ratio` of the entries, `adjacent` ones or
    `scatter`ed ones by `mask_mode`, and others every 100 steps.  Which block is moved depends on the number of steps alone,
    which groups hold.  Gradients of weights that are not moved are zero, and gone where nobody else waits for them.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        mode: str = "layer",
        start_block: int | None = None,
        switch_mode: str = "ascending",
        switch_interval: int = 50,
        update_ratio: float = 0.05,
        mask_mode: str = "adjacent",
        verbose: int = 0,
        seed: int = 0,
    ):
        settings = {
            "mode": mode, "start_block": start_block, "switch_mode": switch_mode, "switch_interval": switch_interval,
            "update_ratio": update_ratio, "mask_mode": mask_mode, "verbose": verbose, "seed": seed, "block": NEVER,
            "moves": 0,
        }  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay} | settings)
        blocks = {group["block"] for group in self.param_groups} - {NEVER}
        if not blocks:
            raise ValueError("no weight that is trained lies in a layer")
        count = max(blocks) + 1
        if start_block is not None and not 0 <= start_block < count:
            raise ValueError(f"start_block must be one of 0 to {count - 1}, got {start_block}")
        for group in self.param_groups:
            group["blocks"] = count
            for weight in group["params"]:
                weight.register_hook(_silenced(group))
                weight.register_post_accumulate_grad_hook(_forgotten(group))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        number = 0
        for group in self.param_groups:
            began = group["moves"] % interval_of(group) == 0 if interval_of(group) > 0 else group["moves"] == 0
            if began and group is self.param_groups[0] and group["verbose"]:
                self._tell(group)
            for weight in group["params"]:
                number += 1
                if began or not moves_now(group):
                    self.state.pop(weight, None)
                if weight.grad is None or not moves_now(group):
                    continue
                whole = group["mode"] == "layer" or weight.numel() <= SMALL
                chosen = None if whole else entries(weight, group, number)
                self._move(weight, group, chosen)
            group["moves"] += 1

    def _move(self, weight: Tensor, group: dict[str, Any], chosen: Tensor | None) -> None:
        """AdamW's step on a weight, or on the entries `chosen` of it."""
        if chosen is None:
            moved = direction(weight.grad, self.state[weight], group["betas"], group["eps"])  # type: ignore[arg-type]
            decay(weight, group)
            weight.add_(moved, alpha=-group["lr"])
            return
        assert weight.grad is not None
        part = weight.reshape(-1)[chosen]
        moved = direction(weight.grad.reshape(-1)[chosen], self.state[weight], group["betas"], group["eps"])
        decay(part, group)
        weight.view(-1)[chosen] = part.add_(moved, alpha=-group["lr"])

    def _tell(self, group: dict[str, Any]) -> None:
        block = active_block(group)
        log.note("badam", f"from step {group['moves'] + 1} on block {block} of {group['blocks']} is moved")
        if group["verbose"] > 1:
            names = [name for one in self.param_groups if moves_now(one) for name in one.get("param_names", ())]
            log.note("badam", f"moved weights: {', '.join(names)}")


def interval_of(group: dict[str, Any]) -> int:
    """Steps between two blocks; -1: there is only one."""
    return RATIO_INTERVAL if group["mode"] == "ratio" else int(group["switch_interval"])


def active_block(group: dict[str, Any]) -> int:
    """The block that the next step moves."""
    count, start, way = group["blocks"], group["start_block"], group["switch_mode"]
    if group["mode"] == "ratio":
        return 0
    period = group["moves"] // group["switch_interval"] if group["switch_interval"] > 0 else 0
    if way == "random":
        if period == 0 and start is not None:
            return int(start)
        random = torch.Generator().manual_seed(group["seed"] + period // count)
        return int(torch.randperm(count, generator=random)[period % count])
    if way == "descending":
        return int(((count - 1 if start is None else start) - period) % count)
    return int(((start or 0) + (period if way == "ascending" else 0)) % count)


def moves_now(group: dict[str, Any]) -> bool:
    """Whether the next step moves the weights of this group."""
    return bool(group["block"] != NEVER and group["block"] == active_block(group))


def entries(weight: Tensor, group: dict[str, Any], number: int) -> Tensor:
    """Which entries of a weight `ratio` moves now, int64 [entries], counted over the flat weight."""
    size, period = weight.numel(), group["moves"] // RATIO_INTERVAL
    count = max(1, int(size * group["update_ratio"]))
    found = (torch.arange(count, device=weight.device) + period * count) % size
    if group["mask_mode"] == "scatter":
        random = torch.Generator().manual_seed(group["seed"] + number)
        return torch.randperm(size, generator=random).to(weight.device)[found]
    return found


def _silenced(group: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """A hook that makes the gradient of a weight zero while its block is not moved: clipping must not count it."""
    return lambda grad: grad if moves_now(group) else torch.zeros_like(grad)


def _forgotten(group: dict[str, Any]) -> Callable[[Tensor], None]:
    """A hook that drops it, where no other process waits for it."""

    def forget(weight: Tensor) -> None:
        if not moves_now(group) and not dist.is_initialized():
            weight.grad = None

    return forget
