"""Where each tensor of safetensors files lies, told from their headers.  Knows bytes; knows no arithmetic."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from tunesmith.log import ModelError
from tunesmith.models.complete import INDEX, SINGLE, Weights, read_header

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
"""Types in which weights are computed with; tensors of others are copied as they are."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file: `dtype` in safetensors' words, its shape, its first byte and how many they are."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def rows(self) -> int:
        """Length of the first axis; 1 for a single number."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        return self.size // self.rows if self.rows else 0


def of_model(weights: Weights) -> dict[str, Stored]:
    """Every tensor of a model that `complete.check` found whole, in the order in which they lie in its files."""
    folder = weights.files[0].parent
    tensors = of_files(weights.files)
    if (folder / SINGLE).is_file():
        return tensors
    named = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    return {name: tensor for name, tensor in tensors.items() if name in named}


def of_files(files: Iterable[Path]) -> dict[str, Stored]:
    """Every tensor of these files, in the order in which they lie there.  Raises ModelError for a damaged file."""
    found: dict[str, Stored] = {}
    for file in files:
        with open(file, "rb") as stream:
            data = 8 + struct.unpack("<Q", stream.read(8))[0]
        here = {
            name: _stored(file, name, entry, data)
            for name, entry in read_header(file).items()
            if name != "__metadata__"
        }
        found |= dict(sorted(here.items(), key=lambda item: item[1].start))
    return found


def read_into(stream: BinaryIO, place: memoryview, start: int) -> None:
    """Fill `place` with the bytes of a file from `start` on.  Raises ModelError when it ends before."""
    stream.seek(start)
    if stream.readinto(place) != len(place):  # type: ignore[attr-defined]
        raise ModelError(f"{stream.name}: it became shorter while it was read")


def _stored(file: Path, name: str, entry: dict[str, object], data: int) -> Stored:
    dtype, shape, offsets = str(entry["dtype"]), entry["shape"], entry["data_offsets"]
    assert isinstance(shape, list) and isinstance(offsets, list)
    size = offsets[1] - offsets[0]
    if dtype in BITS and size * 8 != prod(shape) * BITS[dtype]:
        raise ModelError(f"{file}: damaged: its header gives {name} {size:,} bytes, which is not its shape {shape}")
    return Stored(file, dtype, tuple(shape), data + offsets[0], size)
