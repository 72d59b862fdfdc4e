"""LoRA's product and the frozen one beside it as a single step of the graph, which keeps the least for the way back.

peft computes both and their sum one by one, in the format of the adapter, and keeps every part.  Here the input, which
other layers share, and the narrow product are kept, and all is computed in the format of the input.  The modules, their
names and files stay peft's.  A frozen weight that is held in 4 bits, or by HQQ, is made whole for each product and not kept.
Knows tensors and peft's linear layers; knows no options.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models import float8
from tunesmith.models.tuning.carried import ADAPTER


class _Fused:
    """The way a layer of peft's computes.  Merged or switched off it is peft's own."""

    in_place = True
    """Whether the narrow product is added to the frozen one where that lies: not when the frozen one must stay."""

    is_short = False
    """Whether the frozen weight is held in few bits, and made for each product."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer: Any = self
        if layer.disable_adapters or layer.merged or args or kwargs:
            result: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return result
        base, first, second = layer.base_layer, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x = x.to(dtype)
        seen = layer.lora_dropout[ADAPTER](x)
        weight = partial(_whole, base) if self.is_short else base.weight
        scales = base.scales if isinstance(base, float8.Held) else None
        scale = layer.scaling[ADAPTER]
        return _Adapted.apply(x, seen, weight, scales, base.bias, first, second, scale, self.in_place)


class FusedLinear(_Fused, LoraLinear):
    """peft's linear layer with LoRA, computed at once."""


@cache
def _fused(kind: type[nn.Module]) -> type[nn.Module]:
    """The fused one of peft's class for bases in few bits."""
    return type(f"Fused{kind.__name__}", (_Fused, kind), {"is_short": True})


SHORT = ("Linear4bit", "HqqLoraLinear")
"""peft's classes for bases in few bits that compute as a whole weight would: LLM.int8 rounds what it is given too."""


def fuse(model: PeftModel, *, in_place: bool = True) -> int:
    """Let every plain linear layer with LoRA compute at once; returns how many do.  Others, such as DoRA's, stay.
    `in_place`: False where frozen products are kept for the backward pass."""
    count = 0
    for module in model.modules():
        kind: Any = type(module)
        if kind is LoraLinear and type(module.base_layer) is nn.Linear and _fits(module):
            module.__class__ = FusedLinear
        elif kind.__name__ in SHORT and kind.__module__.startswith("peft.") and _fits(module):
            module.__class__ = _fused(kind)
        else:
            continue
        module.in_place = in_place
        count += 1
    return count


def _fits(module: Any) -> bool:
    return (
        not any(weight.requires_grad for weight in module.base_layer.parameters())
        and list(module.lora_A) == [ADAPTER] == list(module.active_adapters)
        and not module.lora_variant
        and not module.lora_bias[ADAPTER]
    )


def _whole(base: Any, dtype: torch.dtype) -> Tensor:
    """The weight [outputs, inputs] of a base in few bits."""
    if type(base).__name__ == "HQQLinear":
        made: Tensor = base.dequantize()
    else:
        from bitsandbytes.functional import dequantize_4bit

        made = dequantize_4bit(base.weight.data, base.weight.quant_state)
    return made.to(dtype)


class _Adapted(torch.autograd.Function):
    """x W' + b + s (seen A') B', where `seen` is x, or x after dropout.  `weight`: W, or what makes it; `scales`: of a weight
    of 8 bits, else None."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        seen: Tensor,
        weight: Tensor | Callable[[torch.dtype], Tensor],
        scales: Tensor | None,
        bias: Tensor | None,
        first: Tensor,
        second: Tensor,
        scale: float,
        in_place: bool,
    ) -> Tensor:
        # Both lie as [rank, width]: products with such a narrow matrix are slower by its transpose.
        a = first.to(x.dtype)
        b = torch.empty(second.shape[::-1], dtype=x.dtype, device=x.device).copy_(second.t())
        rows = seen.reshape(-1, seen.shape[-1])
        narrow = rows @ a.t()
        bias = None if bias is None else bias.to(x.dtype)
        whole = weight if isinstance(weight, Tensor) else weight(x.dtype)
        if scales is None:
            whole = whole.to(x.dtype)
            out = F.linear(x, whole, bias)
        else:
            out = float8.product(x, whole, scales)
            out = out if bias is None else out.add_(bias)
        flat = out.view(-1, out.shape[-1])
        if in_place:
            flat.addmm_(narrow, b, alpha=scale)
        else:
            out = torch.addmm(flat, narrow, b, alpha=scale).view(out.shape)
        ctx.make = None if isinstance(weight, Tensor) else weight
        ctx.save_for_backward(rows, narrow, whole if ctx.make is None else None, scales, a, b)
        ctx.scale, ctx.same, ctx.held = scale, seen is x, (first.dtype, second.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, weight, scales, a, b = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        by_narrow = (flat @ b.t()).mul_(ctx.scale)
        by_first = by_narrow.t() @ rows
        by_second = (narrow.t() @ flat).mul_(ctx.scale).t()
        by_x = None
        if ctx.needs_input_grad[0]:
            whole = weight if ctx.make is None else ctx.make(flat.dtype)
            by_x = flat @ whole if scales is None else float8.product_back(flat, whole, scales)
        by_seen = None
        if ctx.same and by_x is not None:
            by_x.addmm_(by_narrow, a)
        elif ctx.needs_input_grad[1]:
            by_seen = (by_narrow @ a).view(*grad.shape[:-1], -1)
        by_x = None if by_x is None else by_x.view(*grad.shape[:-1], -1)
        return by_x, by_seen, None, None, None, by_first.to(ctx.held[0]), by_second.to(ctx.held[1]), None, None
