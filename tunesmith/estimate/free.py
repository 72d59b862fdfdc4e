"""How much memory a device has left for this process, and how much it has held.  Knows Linux's files and torch's figures
of a GPU; knows no model."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

GROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that more tensors may take.  On a GPU, what torch keeps for itself counts as free.  On a CPU, what the system
    can give and malloc keeps, within its control group's limit, and this process's share where a launcher started several; within the
    process's own limits (`ulimit -v`, `-d`); None where nobody says."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    kept = _kept_by_malloc()
    shared, processes = [*_available(), *_left_in_group()], int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    least = min([*(free // processes for free in shared), *_left_to_process()], default=None)
    return None if least is None else least + kept


def most_resident() -> int:
    """The most bytes of this process that were in memory at once."""
    if held := _of_status().get("VmHWM"):
        return held
    # Second best: on Linux this begins with what the program held that started this one.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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


def _left_to_process() -> Iterator[int]:
    """Of the limits that a process is given, which `ulimit` shows."""
    taken = _of_status()
    for name, limit in (("VmSize", resource.RLIMIT_AS), ("VmData", resource.RLIMIT_DATA)):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and name in taken:
            yield max(0, most - taken[name])


def _of_status() -> dict[str, int]:
    """Bytes by Linux's names of this process's sums of memory."""
    lines = (line.split() for line in _read(STATUS).splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[-1:] == ["kB"]}


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    )


def _kept_by_malloc() -> int:
    """Bytes that were freed and are kept for the next blocks; 0 where the C library does not say."""
    libc = ctypes.CDLL(None)
    try:
        ask = libc.mallinfo2
    except AttributeError:
        return 0
    ask.restype = _Mallinfo
    return int(ask().fordblks)


def give_back() -> None:
    """Have malloc return to the system what was freed, such as weights in the format that they were read in; it would keep
    a part of it, in pieces that larger blocks do not fit into.  Nothing where the C library has no word for it."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
