"""Products of bf16 on a CPU that has no instructions for them: made in fp32, of pieces that are cast as they are needed.

Torch's own kernels sum such products up number by number there: in up to a hundred times what fp32 takes.  These replace
them in this process, for matrix products and attention alike, in whichever library's code they are asked for; nothing is
rounded that the others would not round.  Knows torch's operators; knows no model.
"""

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tunesmith.models.kernels import Kernel, Replaced
from tunesmith.models.precision import Precision

PIECE = 5 << 20
"""Numbers of a matrix that lie there in fp32 at one time: as many as fit into large caches."""

WIDEST = 5 << 10
"""Columns of a product that are made at once where it is wider."""

FEW = 8
"""Rows up to which torch's own kernel is faster, which reads each weight once: as when one token after another is drawn."""

BF16 = torch.bfloat16

Make = Callable[..., Tensor]
Fits = Callable[[Tensor, Tensor, Tensor | None], bool]


class _Buffer:
    """Memory for one piece in fp32, which grows to the largest that was asked for."""

    def __init__(self) -> None:
        self._kept = torch.empty(0)

    def of(self, *shape: int) -> Tensor:
        """Room of that shape."""
        size = math.prod(shape)
        if len(self._kept) < size:
            self._kept = torch.empty(max(size, min(PIECE, 2 * size)))
        return self._kept[:size].view(shape)

    def cast(self, piece: Tensor) -> Tensor:
        """`piece` [..., rows, columns] in fp32, in the order in which its numbers lie."""
        turned = piece.stride(-1) != 1
        place = self.of(*(piece.mT if turned else piece).shape)
        return (place.mT if turned else place).copy_(piece)


class _Room(threading.local):
    """A thread's memory for both factors and their product.  Kept, since blocks as large that came and went between smaller
    ones, which stay, would leave gaps in which nothing fits."""

    def __init__(self) -> None:
        self.one, self.other, self.product = _Buffer(), _Buffer(), _Buffer()


_room = _Room()


def are_slow(device: torch.device, precision: Precision) -> bool:
    """Whether a run computes in bf16 on a device that has no instructions for it."""
    computed = precision.autocast or precision.weights
    return device.type == "cpu" and computed == BF16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def product(
    one: Tensor, other: Tensor, out: Tensor, start: Tensor | None = None, beta: float = 1, alpha: float = 1
) -> Tensor:
    """out = beta start + alpha one @ other, summed up in fp32.  `one` [rows, inner], `other` [inner, columns], `out` and
    `start` [rows, columns], which may be one; `start` may be narrower where it is repeated."""
    start = None if start is None or beta == 0 else start.expand_as(out)
    (rows, inner), columns = one.shape, other.shape[1]
    wide = _even(columns, WIDEST)
    deep = _even(inner, PIECE // max(1, wide))
    high = _even(rows, PIECE // max(1, wide, deep))
    for across in _pieces(columns, wide):
        for down in _pieces(rows, high):
            total: Tensor | None = None
            for along in _pieces(inner, deep):
                a, b = _room.one.cast(one[down, along]), _room.other.cast(other[along, across])
                if total is None:
                    total = torch.mm(a, b, out=_room.product.of(len(a), b.shape[1]))
                else:
                    total.addmm_(a, b)
            if total is None:
                total = out.new_zeros(out[down, across].shape, dtype=torch.float32)
            _finish(out[down, across], total, None if start is None else start[down, across], beta, alpha)
    return out


def products(
    one: Tensor, other: Tensor, out: Tensor, start: Tensor | None = None, beta: float = 1, alpha: float = 1
) -> Tensor:
    """The same of each matrix: `one` [matrices, rows, inner], `other` [matrices, inner, columns]."""
    start = None if start is None or beta == 0 else start.expand_as(out)
    largest = max(1, *(each.shape[1] * each.shape[2] for each in (one, other, out)))
    if largest > PIECE:
        for number in range(len(out)):
            product(one[number], other[number], out[number], None if start is None else start[number], beta, alpha)
        return out
    for some in _pieces(len(out), max(1, PIECE // largest)):
        a, b = _room.one.cast(one[some]), _room.other.cast(other[some])
        total = torch.bmm(a, b, out=_room.product.of(len(a), a.shape[1], b.shape[2]))
        _finish(out[some], total, None if start is None else start[some], beta, alpha)
    return out


def _finish(out: Tensor, total: Tensor, start: Tensor | None, beta: float, alpha: float) -> None:
    if alpha != 1:
        total.mul_(alpha)
    out.copy_(total if start is None else total.add_(start, alpha=beta))


def _even(size: int, most: int) -> int:
    """The size of equal pieces of which each is `most` at the most."""
    return -(-size // -(-size // max(1, most))) if size else 1


def _pieces(size: int, each: int) -> Iterator[slice]:
    return (slice(start, start + each) for start in range(0, size, each))


def _is_for_us(one: Tensor, other: Tensor, out: Tensor | None) -> bool:
    """Whether a product is of bf16, and its shapes fit: torch says best what does not."""
    if not one.dtype == other.dtype == BF16 or one.shape[-1] != other.shape[-2] or one.shape[:-2] != other.shape[:-2]:
        return False
    return out is None or (out.dtype == BF16 and out.shape == (*one.shape[:-1], other.shape[-1]))


def _is_better(one: Tensor, other: Tensor, out: Tensor | None) -> bool:
    reads_once = one.shape[0] <= FEW and other.stride(0) == 1
    return _is_for_us(one, other, out) and not reads_once


def _plain(fits: Fits, make: Make) -> Callable[[Kernel], Kernel]:
    """`mm` and `bmm`: of what fits one product is made here."""

    def taking(kernel: Kernel) -> Kernel:
        def multiply(keys: Any, one: Tensor, other: Tensor, **into: Tensor) -> Any:
            out = into.get("out")
            return (
                make(one, other, _out(one, other, out)) if fits(one, other, out) else kernel(keys, one, other, **into)
            )

        return multiply

    return taking


def _added(fits: Fits, make: Make, *, in_place: bool = False) -> Callable[[Kernel], Kernel]:
    """`addmm` and `baddbmm`: the same, added to what is there."""

    def taking(kernel: Kernel) -> Kernel:
        def add(
            keys: Any, start: Tensor, one: Tensor, other: Tensor, *, beta: Any = 1, alpha: Any = 1, **into: Tensor
        ) -> Any:
            out = start if in_place else into.get("out")
            if not fits(one, other, out):
                return kernel(keys, start, one, other, beta=beta, alpha=alpha, **into)
            return make(one, other, _out(one, other, out), start, beta, alpha)

        return add

    return taking


def _out(one: Tensor, other: Tensor, given: Tensor | None) -> Tensor:
    return one.new_empty(*one.shape[:-1], other.shape[-1]) if given is None else given


def _in_fp32(kernel: Kernel) -> Kernel:
    """Attention, forward or back: what comes in bf16 is cast, and what goes out in the format of the queries."""

    def attend(keys: Any, *args: Any, **kwargs: Any) -> Any:
        if args[0].dtype != BF16:
            return kernel(keys, *args, **kwargs)
        args = tuple(map(_cast, args))
        kwargs = {name: _cast(value) for name, value in kwargs.items()}
        first, *others = kernel(keys, *args, **kwargs)
        return (first.to(BF16), *others)

    return attend


def _cast(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == BF16 else value


ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"

REPLACED = Replaced(
    {
        "mm": _plain(_is_better, product),
        "mm.out": _plain(_is_better, product),
        "addmm": _added(_is_better, product),
        "addmm.out": _added(_is_better, product),
        "addmm_": _added(_is_better, product, in_place=True),
        "bmm": _plain(_is_for_us, products),
        "bmm.out": _plain(_is_for_us, products),
        "baddbmm": _added(_is_for_us, products),
        "baddbmm.out": _added(_is_for_us, products),
        "baddbmm_": _added(_is_for_us, products, in_place=True),
        ATTENTION: _in_fp32,
        f"{ATTENTION}_backward": _in_fp32,
    }
)
