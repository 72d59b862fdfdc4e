"""GrokAdamW: AdamW that listens to slow gradients more.  Knows tensors."""

from typing import Any

import torch
from torch.optim import Optimizer

from tunesmith.optim.adam import decay


class GrokAdamW(Optimizer):
    """AdamW on g + `lamb` x m, where m is the gradient's running mean with decay `alpha_init` (Grokfast, arXiv:2405.20233);
    the decay of Adam's own mean falls by `gamma` from one weight of a group to the next, and each weight's gradient is
    clipped to a length of `gradient_clipping` (0: not).  As in Transformers no signal of grokking is given, so the decay of m
    stays as it begins."""

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        alpha_init: float = 0.98,
        lamb: float = 2.0,
        gamma: float = 0.1,
        gradient_clipping: float = 1.0,
    ):
        if not 0 <= alpha_init <= 1:
            raise ValueError(f"alpha_init must be between 0 and 1, got {alpha_init}")
        settings = {"alpha_init": alpha_init, "lamb": lamb, "gamma": gamma, "gradient_clipping": gradient_clipping}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay} | settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            moved = [weight for weight in group["params"] if weight.grad is not None]
            for place, weight in enumerate(moved):
                grad, state, limit = weight.grad, self.state[weight], group["gradient_clipping"]
                if limit > 0:
                    grad = grad * (limit / (grad.norm() + 1e-6)).clamp_(max=1.0)
                if "step" not in state:
                    state |= {"step": 0} | {
                        name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq", "grok_ema")
                    }
                state["step"] = step = state["step"] + 1
                state["grok_ema"].lerp_(grad, 1 - group["alpha_init"])
                heard = grad + group["lamb"] * state["grok_ema"]
                state["exp_avg"].lerp_(heard, 1 - beta1 * (1 - group["gamma"]) ** place)
                state["exp_avg_sq"].mul_(beta2).addcmul_(heard, heard, value=1 - beta2)
                length = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
                decay(weight, group)
                weight.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-length)
