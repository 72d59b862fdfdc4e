"""LoRA's product and the frozen one beside it as a single step of the graph, which keeps the least for the way back.

peft computes both and their sum one by one, in the format of the adapter, and keeps every part.  Here the input, which
other layers share, and the narrow product are kept, and all is computed in the format of the input.  The modules, their
names and files stay peft's.  Knows tensors and peft's linear layer; knows no options.
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models import float8
from tunesmith.models.tuning.carried import ADAPTER


class FusedLinear(LoraLinear):
    """peft's linear layer with LoRA, computed at once.  Merged or switched off it is peft's own."""

    in_place = True
    """Whether the narrow product is added to the frozen one where that lies: not when the frozen one must stay."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs:
            return super().forward(x, *args, **kwargs)
        base, first, second = self.base_layer, self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x = x.to(dtype)
        seen = self.lora_dropout[ADAPTER](x)
        scales = base.scales if isinstance(base, float8.Held) else None
        scale = self.scaling[ADAPTER]
        return _Adapted.apply(x, seen, base.weight, scales, base.bias, first, second, scale, self.in_place)


def fuse(model: PeftModel, *, in_place: bool = True) -> int:
    """Let every plain linear layer with LoRA compute at once; returns how many do.  Others, such as DoRA's, stay.
    `in_place`: False where frozen products are kept for the backward pass."""
    fitting = [module for module in model.modules() if type(module) is LoraLinear and _fits(module)]
    for module in fitting:
        module.__class__ = FusedLinear
        module.in_place = in_place
    return len(fitting)


def _fits(module: LoraLinear) -> bool:
    return (
        type(module.base_layer) is nn.Linear
        and not module.base_layer.weight.requires_grad
        and list(module.lora_A) == [ADAPTER] == list(module.active_adapters)
        and not module.lora_variant
        and not module.lora_bias[ADAPTER]
    )


class _Adapted(torch.autograd.Function):
    """x W' + b + s (seen A') B', where `seen` is x, or x after dropout.  `scales`: of a weight of 8 bits, else None."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        seen: Tensor,
        weight: Tensor,
        scales: Tensor | None,
        bias: Tensor | None,
        first: Tensor,
        second: Tensor,
        scale: float,
        in_place: bool,
    ) -> Tensor:
        # Both lie as [rank, width]: products with such a narrow matrix are slower by its transpose.
        a, b = first.to(x.dtype), second.to(x.dtype).t().contiguous()
        rows = seen.reshape(-1, seen.shape[-1])
        narrow = rows @ a.t()
        bias = None if bias is None else bias.to(x.dtype)
        if scales is None:
            weight = weight.to(x.dtype)
            out = F.linear(x, weight, bias)
        else:
            out = float8.product(x.reshape(-1, x.shape[-1]), weight, scales).view(*x.shape[:-1], -1)
            out = out if bias is None else out.add_(bias)
        flat = out.view(-1, out.shape[-1])
        if in_place:
            flat.addmm_(narrow, b, alpha=scale)
        else:
            out = torch.addmm(flat, narrow, b, alpha=scale).view(out.shape)
        ctx.save_for_backward(rows, narrow, weight, scales, first, second)
        ctx.scale, ctx.same = scale, seen is x
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, weight, scales, first, second = ctx.saved_tensors
        a, b = first.to(grad.dtype), second.to(grad.dtype)
        flat = grad.reshape(-1, grad.shape[-1])
        by_narrow = (flat @ b).mul_(ctx.scale)
        by_first = by_narrow.t() @ rows
        by_second = (narrow.t() @ flat).mul_(ctx.scale).t()
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = flat @ weight if scales is None else float8.product_back(flat, weight, scales)
        by_seen = None
        if ctx.same and by_x is not None:
            by_x.addmm_(by_narrow, a)
        elif ctx.needs_input_grad[1]:
            by_seen = (by_narrow @ a).view(*grad.shape[:-1], -1)
        by_x = None if by_x is None else by_x.view(*grad.shape[:-1], -1)
        return by_x, by_seen, None, None, None, by_first.to(first.dtype), by_second.to(second.dtype), None, None
