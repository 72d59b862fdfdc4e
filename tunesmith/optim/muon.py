"""Muon for matrices and AdamW for all else, as one optimizer.  Knows torch's two; which weights are matrices is said by groups."""

from typing import Any

import torch
from torch.optim import AdamW, Optimizer
from torch.optim import Muon as TorchMuon


class Muon(Optimizer):
    """torch's Muon (https://kellerjordan.github.io/posts/muon/) on groups whose `muon` is true, AdamW on the others.

    Muon's step is scaled to be as long as AdamW's (arXiv:2502.16982, eq. 4), so that `lr` and `weight_decay` mean the same for
    both.  Groups and state are shared with the two, so that schedules and checkpoints know one optimizer.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
        fused: bool | None = None,
    ):
        groups = [group if isinstance(group, dict) else {"params": [group]} for group in params]
        matrices = [group for group in groups if group.get("muon")]
        others = [group for group in groups if not group.get("muon")]
        self.parts: list[Optimizer] = []
        if matrices:
            self.parts.append(
                TorchMuon(
                    matrices,
                    lr=lr,
                    weight_decay=weight_decay,
                    momentum=momentum,
                    nesterov=nesterov,
                    ns_steps=ns_steps,
                    adjust_lr_fn=adjust_lr_fn,
                )
            )
        if others:
            self.parts.append(AdamW(others, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused))
        super().__init__([group for part in self.parts for group in part.param_groups], {"lr": lr})
        self.share()

    def share(self) -> None:
        """Let both parts see this optimizer's groups and state."""
        for part in self.parts:
            part.state = self.state
            wanted = isinstance(part, TorchMuon)
            part.param_groups = [group for group in self.param_groups if bool(group.get("muon")) == wanted]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()
