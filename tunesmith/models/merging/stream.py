"""Writes a merged model from its files, some rows at a time: what is held does not grow with the model.

Knows files, tensors and changes; knows no architecture and no options.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from tunesmith.log import ModelError
from tunesmith.models.merging import shards
from tunesmith.models.merging.arithmetic import TYPES, Rule, needs_all_rows, rule_of
from tunesmith.models.merging.behind import Behind
from tunesmith.models.merging.changes import Change
from tunesmith.models.merging.stored import Stored, read_into

PIECE_BYTES = 1 << 20
"""Bytes that are read and computed with at a time: about what a processor's cache holds."""


def write(
    tensors: Mapping[str, Stored],
    changes: Mapping[str, Sequence[Change]],
    folder: Path,
    *,
    most_bytes: int,
    device: torch.device,
    on_bytes: Callable[[int], None],
) -> list[str]:
    """Write `tensors` with their changes into `folder`, in files of at most `most_bytes` of tensors; returns their names.

    `on_bytes` is told how much was written since it was told last.  Raises ModelError naming the first tensor that is
    not finite.
    """
    planned = shards.plan(tensors, most_bytes)
    for shard in planned:
        with open(folder / shard.file, "xb", buffering=0) as stream, Behind(stream) as out:
            out.write(shards.header(shard))
            for name, tensor in shard.tensors.items():
                for piece in _pieces(name, tensor, changes.get(name, ()), device):
                    out.write(piece)
                    on_bytes(len(piece))
    if named := shards.index(planned):
        (folder / named[0]).write_text(named[1], encoding="utf-8")
    return [shard.file for shard in planned]


def _pieces(name: str, tensor: Stored, changes: Sequence[Change], device: torch.device) -> Iterator[memoryview]:
    """The bytes of a tensor as it is to be, checked."""
    dtype = TYPES.get(tensor.dtype)
    rule = rule_of(changes, device) if changes else None
    with ExitStack() as stack:
        stream = stack.enter_context(open(tensor.file, "rb", buffering=0))
        for which in _divided(tensor, whole=needs_all_rows(changes)):
            data = _read(stream, tensor, which)
            if dtype is None:
                yield memoryview(data)
                continue
            rows = torch.frombuffer(data, dtype=dtype)
            if rule is not None:
                rows = _changed(rows.view(-1, *tensor.shape[1:]), rule, which, device)
            if not _is_finite(rows):
                raise ModelError(f"the weight {name} is not finite; nothing was written")
            yield rows.view(-1).view(torch.uint8).numpy().data


def _changed(rows: Tensor, rule: Rule, which: slice, device: torch.device) -> Tensor:
    """The rows with all changes, in the type they came in, on the CPU."""
    computed = rule(rows.to(device, torch.float32, copy=True), which)
    return computed.to(rows.dtype).cpu().contiguous()


def _is_finite(rows: Tensor) -> bool:
    least, most = torch.aminmax(rows)  # both are NaN when any value is
    return math.isfinite(least) and math.isfinite(most)


def _divided(tensor: Stored, *, whole: bool) -> Iterator[slice]:
    """Equal parts of a tensor's rows of about `PIECE_BYTES`, or all of them; nothing for an empty tensor."""
    parts = 1 if whole else max(1, min(tensor.rows, tensor.size // PIECE_BYTES))
    step = -(-tensor.rows // parts)
    if tensor.size:
        yield from (slice(start, min(start + step, tensor.rows)) for start in range(0, tensor.rows, step))


def _read(stream: BinaryIO, tensor: Stored, which: slice) -> bytearray:
    data = bytearray((which.stop - which.start) * tensor.row_bytes)
    read_into(stream, memoryview(data), tensor.start + which.start * tensor.row_bytes)
    return data
