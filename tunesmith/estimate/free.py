"""How much memory a device has left for this process.  Knows Linux's files and torch's GPU figures; knows no model."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

GROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that more tensors may take.  On a GPU, what torch keeps for itself counts as free.  On a CPU, what the system
    can give, within its control group's limit, and this process's share where a launcher started several; None where
    nobody says."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    limits = [*_available(), *_left_in_group()]
    return min(limits) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if limits else None


def _available() -> Iterator[int]:
    for line in _read(MEMINFO).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            yield int(rest.split()[0]) * 1024


def _left_in_group() -> Iterator[int]:
    """Of the control group's limit; files that were read lie in its memory too, and give way."""
    for limit, used, gives_way in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _read(GROUPS / limit).strip(), _read(GROUPS / used).strip()
        if most.isdigit() and now.isdigit():
            stat = _read((GROUPS / limit).parent / "memory.stat")
            cached = dict(line.split() for line in stat.splitlines()).get(gives_way, "0")
            yield max(0, int(most) - int(now) + int(cached))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
