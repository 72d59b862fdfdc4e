"""Linear layers whose products are made of numbers of 8 bits (e4m3), with a scale for each row: of weights that stay, scaled
once and held so, and of trained ones, scaled at each pass.  Knows modules and tensors; knows no device and no option.

A row is divided by its largest value over 448, the largest number of the format (arXiv:2209.05433).  Forward, x W': each
token has a scale, and each output.  Back, g W, where outputs are summed over: their scales go into g first, so that one
form of a weight serves both ways.  A trained weight's own gradient, g' x, is computed in the format of x.  The head, LoRA's
narrow products, and what has sides that are no multiples of 16 stay as they are.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from tunesmith.compiled import compilable
from tunesmith.models import structure

FORMAT = torch.float8_e4m3fn
LARGEST = torch.finfo(FORMAT).max
LEAST = 1e-12
"""Of a row's largest value: one of zeros must not be divided by nothing."""

SIDE = 16
"""What both sides of a weight are multiples of, or the kernels refuse it."""

KEPT_WHOLE = ("gate", "router", "shared_expert_gate")
"""Names of layers that choose experts, where a small error chooses another."""


class Held(nn.Linear):
    """A frozen linear layer whose `weight` is bytes, each a number of FORMAT, with `scales` [outputs, 1] in fp32."""

    scales: Tensor

    def forward(self, input: Tensor) -> Tensor:
        x = _as_computed(input)
        out: Tensor = _Frozen.apply(x, self.weight, self.scales)
        return out if self.bias is None else out + self.bias.to(out.dtype)


class Scaled(nn.Linear):
    """A linear layer whose weight is whole, and scaled for each product."""

    def forward(self, input: Tensor) -> Tensor:
        x = _as_computed(input)
        out: Tensor = _Trained.apply(x, self.weight)
        return out if self.bias is None else out + self.bias.to(out.dtype)


def take(model: PreTrainedModel | PeftModel) -> int:
    """Let the model's linear layers compute so; returns how many do.  Beside an adapter the frozen ones are held so, since
    nothing writes them any more; else all keep their weights whole."""
    adapted = isinstance(model, PeftModel)
    found = [module for module in _fitting(model) if not (adapted and module.weight.requires_grad)]
    for module in found:
        if not adapted:
            module.__class__ = Scaled
            continue
        with torch.no_grad():
            held, scales = scaled(module.weight)
        module.__class__ = Held
        module.weight = nn.Parameter(held.view(torch.uint8), requires_grad=False)
        module.register_buffer("scales", scales, persistent=False)
    return len(found)


def elements(model: nn.Module) -> int:
    """Elements per token that are scaled forward and back, at least."""
    return sum(
        module.in_features + module.out_features for module in model.modules() if isinstance(module, Held | Scaled)
    )


class _Last:
    """The last input that was scaled, so that layers which read the same one, as those of queries, keys and values do, have
    it scaled once.  Held no longer than the input is."""

    def __init__(self) -> None:
        self._of: Callable[[], Tensor | None] = lambda: None
        self._version = -1
        self._made: tuple[Tensor, Tensor] | None = None

    def scaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`scaled` of the tokens of `x` [..., width]."""
        if x.is_inference():  # has no version, by which a change would be seen
            return scaled(x.reshape(-1, x.shape[-1]))
        if self._made is None or self._of() is not x or self._version != x._version:
            self._made = scaled(x.reshape(-1, x.shape[-1]))
            self._of, self._version = weakref.ref(x, self._forget), x._version
        return self._made

    def _forget(self, gone: object) -> None:
        if gone is self._of:
            self._made = None


_last = _Last()


def product(x: Tensor, held: Tensor, scales: Tensor) -> Tensor:
    """[..., outputs] of `x` [..., inputs] and a weight [outputs, inputs] of bytes with its `scales`."""
    each, by_row = _last.scaled(x)
    made = torch._scaled_mm(
        each, held.view(FORMAT).t(), by_row, scales.t(), out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return made.to(x.dtype).view(*x.shape[:-1], -1)


def product_back(rows: Tensor, held: Tensor, scales: Tensor) -> Tensor:
    """[tokens, inputs] of gradients `rows` [tokens, outputs] and the same weight."""
    each, by_row = scaled(rows, scales.t())
    # The kernels read a second matrix by columns; bytes are turned, which every device can.
    columns = held.view(torch.uint8).t().contiguous().view(FORMAT).t()
    ones = torch.ones(1, columns.shape[1], dtype=torch.float32, device=rows.device)
    made = torch._scaled_mm(each, columns, by_row, ones, out_dtype=torch.bfloat16, use_fast_accum=True)
    return made.to(rows.dtype)


@compilable
def scaled(rows: Tensor, times: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`rows` [rows, width], each column `times` [1, width] first, in FORMAT; and what each was divided by, fp32 [rows, 1]."""
    exact = rows if times is None else rows * times
    largest = torch.linalg.vector_norm(exact, torch.inf, 1, keepdim=True).float()
    scales = largest.clamp(min=LEAST) / LARGEST
    return (exact / scales).to(FORMAT), scales


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, held: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(held, scales)
        return product(x, held, scales)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_x = product_back(grad.reshape(-1, grad.shape[-1]), *ctx.saved_tensors)
        return by_x.view(*grad.shape[:-1], -1), None, None


class _Trained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x.reshape(-1, x.shape[-1]), weight)
        return product(x, *scaled(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        by_x = by_weight = None
        if ctx.needs_input_grad[0]:
            by_x = product_back(flat, *scaled(weight)).view(*grad.shape[:-1], -1)
        if ctx.needs_input_grad[1]:
            by_weight = (flat.t() @ rows).to(weight.dtype)
        return by_x, by_weight


def _as_computed(x: Tensor) -> Tensor:
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _fitting(model: PreTrainedModel | PeftModel) -> list[nn.Linear]:
    """Plain linear layers inside the decoder that kernels take."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    parents = dict(base.named_modules())
    found = []
    for name in structure.linear_names(base):
        module, above = parents[name], name.rpartition(".")[0]
        parts = name.split(".")
        if {"lora_A", "lora_B", "original_module", "modules_to_save"} & set(parts):
            continue
        if [part for part in parts if part != "base_layer"][-1] in KEPT_WHOLE:
            continue
        parent = parents[above]
        if isinstance(parent, LoraLayer) and (parent.lora_variant or parts[-1] != "base_layer"):
            continue  # DoRA reads the weight itself
        if parent is base.get_output_embeddings() or type(module) is not nn.Linear:
            continue
        if module.in_features % SIDE == 0 and module.out_features % SIDE == 0:
            found.append(module)
    return found
