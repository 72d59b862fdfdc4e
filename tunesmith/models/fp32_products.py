"""Products of fp32 made by oneDNN on a CPU whose width torch's own library does not use.

Torch multiplies fp32 with Intel's MKL, which uses half the width of another maker's CPU with AVX-512.  oneDNN, which torch
brings along too, uses all of it.  Numbers are summed in fp32 either way.  Knows torch's operators; knows no model.
"""

from typing import Any

import torch
from torch import Tensor

from tunesmith.models.kernels import Kernel, Replaced
from tunesmith.models.precision import Precision, told_of_cpu

LEAST = 1 << 21
"""Multiplications of a product below which it is not worth the call."""

NARROW = 256
"""Columns of a product up to which it is not worth it where the first factor must be laid out anew."""

SHALLOW = 64
"""Products summed up in each number, below which adding the result to what is there costs more than it gains."""

PIECE = 1 << 21
"""Numbers of a product that lie beside what they are added to."""


def are_slow(device: torch.device, precision: Precision) -> bool:
    """Whether a run computes in fp32 on a CPU on which torch's own products use half of it."""
    computed = precision.autocast or precision.weights
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return (
        device.type == "cpu"
        and computed == torch.float32
        and wide
        and told_of_cpu("vendor_id") not in ("", "GenuineIntel")
    )


def product(one: Tensor, other: Tensor, bias: Tensor | None = None) -> Tensor:
    """one @ other + bias; [rows, inner], [inner, columns] and [columns]."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(one, other.t(), bias, "none", [], "")
    return out


def added(out: Tensor, start: Tensor, one: Tensor, other: Tensor, beta: float, alpha: float) -> Tensor:
    """out = beta start + alpha one @ other; `out` and `start` [rows, columns], which may be one."""
    rows = max(1, PIECE // other.shape[1])
    for whole, begun, part in zip(out.split(rows), start.expand_as(out).split(rows), one.split(rows), strict=True):
        made = product(part, other)
        made = made if alpha == 1 else made.mul_(alpha)
        torch.add(made, begun, alpha=beta, out=whole) if beta else whole.copy_(made)
    return out


def is_for_us(one: Tensor, other: Tensor) -> bool:
    """Whether a product is of fp32, fits and gains.  A second factor that is not dense would be multiplied number by number."""
    if not one.dtype == other.dtype == torch.float32 or not one.ndim == other.ndim == 2 or one.shape[1] != len(other):
        return False
    if one.shape[0] * other.numel() < LEAST or not (other.is_contiguous() or other.t().is_contiguous()):
        return False
    return one.stride(1) == 1 or other.shape[1] > NARROW


def _plain(kernel: Kernel) -> Kernel:
    def multiply(keys: Any, one: Tensor, other: Tensor) -> Any:
        return product(one, other) if is_for_us(one, other) else kernel(keys, one, other)

    return multiply


def _added(kernel: Kernel, *, in_place: bool = False) -> Kernel:
    def add(keys: Any, start: Tensor, one: Tensor, other: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
        fits = is_for_us(one, other) and start.dtype == torch.float32
        if fits and not in_place and beta == alpha == 1 and start.shape == other.shape[1:]:
            return product(one, other, start)
        if not fits or one.shape[1] < SHALLOW or (in_place and start.shape != (len(one), other.shape[1])):
            return kernel(keys, start, one, other, beta=beta, alpha=alpha)
        out = start if in_place else one.new_empty(len(one), other.shape[1])
        return added(out, start, one, other, beta, alpha)

    return add


def _added_in_place(kernel: Kernel) -> Kernel:
    return _added(kernel, in_place=True)


REPLACED = Replaced({"mm": _plain, "addmm": _added, "addmm_": _added_in_place})
"""Products of several matrices at once, which are short in attention, stay torch's own, and so does whatever has an `out`."""
