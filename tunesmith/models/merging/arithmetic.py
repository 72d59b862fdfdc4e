"""The merged values of a tensor, some rows at a time.  Knows matrices; knows no files' format and no options.

Everything is computed in fp32 and rounded once, to the type that the tensor has on disk.  The operations and their order
are peft's, so that the result is, bit for bit, what merging in memory in fp32 and saving gives.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tunesmith.models.merging.changes import Change, LowRank, Replaced
from tunesmith.models.merging.stored import Stored, read_into

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}

BLOCK_NUMBERS = 1 << 26
"""Most numbers of a product of two adapter matrices that are held at a time: 256 MiB."""

Rule = Callable[[Tensor, slice], Tensor]
"""Rows of a tensor in fp32, and which rows they are -> what becomes of them."""


def rule_of(changes: Sequence[Change], device: torch.device) -> Rule:
    """All changes of one tensor, one after the other; its adapters' matrices are read now."""
    rules = [_rule(change, device) for change in changes]

    def apply(rows: Tensor, which: slice) -> Tensor:
        for rule in rules:
            rows = rule(rows, which)
        return rows

    return apply


def needs_all_rows(changes: Sequence[Change]) -> bool:
    """Whether a change looks at a whole matrix at once."""
    return any(isinstance(change, LowRank) and change.magnitude is not None for change in changes)


def read_all(tensor: Stored) -> Tensor:
    """A tensor from its file."""
    place = bytearray(tensor.size)
    with open(tensor.file, "rb", buffering=0) as stream:
        read_into(stream, memoryview(place), tensor.start)
    return torch.frombuffer(place, dtype=TYPES[tensor.dtype]).view(tensor.shape)


def _rule(change: Change, device: torch.device) -> Rule:
    if isinstance(change, Replaced):
        by = read_all(change.by).to(device, torch.float32)
        return lambda _, which: by[which]
    first, second = (read_all(tensor).to(device, torch.float32) for tensor in (change.first, change.second))
    if change.magnitude is not None:
        return _dora(change, first, second, read_all(change.magnitude).to(device, torch.float32))
    return _Product(first, second, change)


class _Product:
    """W + scale * B A.  The product is made whole, as peft makes it (libraries may sum a part of a matrix in another
    order), or of matrices beyond `BLOCK_NUMBERS` in parts so large that their own parts are made alike."""

    def __init__(self, first: Tensor, second: Tensor, change: LowRank) -> None:
        self._first, self._second, self._change = first, second, change
        self._rows = max(1, BLOCK_NUMBERS // (len(second) if change.transposed else first.shape[1]))
        self._delta = torch.empty(0)
        self._start = 0

    def __call__(self, rows: Tensor, which: slice) -> Tensor:
        if which.start < self._start or which.stop > self._start + len(self._delta):
            self._make(which.start, max(which.stop, which.start + self._rows))
        return rows.add_(self._delta[which.start - self._start : which.stop - self._start])

    def _make(self, start: int, stop: int) -> None:
        if self._change.transposed:
            self._delta = (self._second @ self._first[:, start:stop]).T
        else:
            self._delta = self._second[start:stop] @ self._first
        self._delta.mul_(self._change.scale)
        self._start = start


def _dora(change: LowRank, first: Tensor, second: Tensor, magnitude: Tensor) -> Rule:
    """DoRA (arXiv:2402.09353, eq. 5): m * (W + s B A) / |W + s B A|, the norms over each output's weights."""

    def apply(weight: Tensor, _: slice) -> Tensor:
        delta = (second @ first).T * change.scale if change.transposed else second @ first * change.scale
        by_output = weight.T + delta.T if change.transposed else weight + delta
        factor = magnitude / torch.linalg.norm(by_output, dim=1)
        return factor.view(1, -1) * (weight + delta) if change.transposed else factor.view(-1, 1) * (weight + delta)

    return apply
