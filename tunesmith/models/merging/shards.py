"""How tensors are divided among files, and how such a file begins.  Knows names and sizes; knows no contents."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.models.complete import INDEX, SINGLE
from tunesmith.models.merging.stored import BITS, Stored

ALIGNED = 8
"""Bytes to a multiple of which a header is filled up, so that tensors can be mapped into memory."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of weights: its name and its tensors in order."""

    file: str
    tensors: dict[str, Stored]


def plan(tensors: Mapping[str, Stored], most_bytes: int) -> list[Shard]:
    """Files of at most `most_bytes` of tensors each, in the order given; a larger tensor gets a file of its own."""
    groups: list[dict[str, Stored]] = []
    room = 0
    for name, tensor in tensors.items():
        if not groups or tensor.size > room:
            groups.append({})
            room = most_bytes
        groups[-1][name] = tensor
        room -= tensor.size
    if len(groups) == 1:
        return [Shard(SINGLE, _aligned(groups[0]))]
    return [
        Shard(f"model-{number:05}-of-{len(groups):05}.safetensors", _aligned(group))
        for number, group in enumerate(groups, start=1)
    ]


def header(shard: Shard) -> bytes:
    """What stands before the tensors: their types, shapes and places."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in shard.tensors.items():
        entries[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (end, end + tensor.size)}
        end += tensor.size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    return struct.pack("<Q", len(text)) + text


def index(shards: list[Shard]) -> tuple[str, str] | None:
    """Name and content of the file that tells which tensor is in which file; None for a single one."""
    if len(shards) < 2:
        return None
    total = sum(tensor.size for shard in shards for tensor in shard.tensors.values())
    where = {name: shard.file for shard in shards for name in shard.tensors}
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    return INDEX, json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _aligned(group: dict[str, Stored]) -> dict[str, Stored]:
    """Wide numbers first, so that each tensor begins at a multiple of its numbers' size."""
    return dict(sorted(group.items(), key=lambda item: -BITS.get(item[1].dtype, 0)))
