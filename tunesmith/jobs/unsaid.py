"""What is told of a run that ended without a word: when, where it stood, what it held of the memory there was, and whether
Linux killed for memory since.  Knows a run's folder and Linux's files; knows no tensor."""

import json
import resource
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.log import warn

EVENTS = "events.jsonl"
TAIL_BYTES = 65_536
BOOT, COUNTERS, MEMORY, PAGES = (
    Path("/proc/sys/kernel/random/boot_id"), Path("/proc/vmstat"), Path("/proc/meminfo"), Path("/proc/self/statm"),
)  # fmt: skip


def machine() -> dict[str, Any]:
    """For `run.json`: which start of the machine this is, how many processes it has killed for memory so far, and its bytes."""
    return {"boot": _read(BOOT).strip(), "killed": _figure(COUNTERS, "oom_kill"), "memory_bytes": _memory()}


def resident_bytes() -> int | None:
    """What this process holds of the memory now; None where nobody says."""
    words = _read(PAGES).split()
    return int(words[1]) * resource.getpagesize() if len(words) > 1 else None


def tell(folder: Path, facts: Mapping[str, Any]) -> None:
    """Warn where the run that a folder holds never said that it ended.  Call only when no process works in the folder."""
    if facts.get("status") != "running":
        return
    step, when, held = _last(folder)
    found = facts.get("machine")
    when, before = when or facts.get("started", "?"), found if isinstance(found, dict) else {}
    most = _whole(before.get("memory_bytes"))
    stood = f"after step {step}" if step else "before its first log row"
    warn("resume", f"the run before ended without a word, {stood}, last heard of at {when}{_holding(held, most)}")
    if facts.get("host") != socket.gethostname() or not before.get("boot"):
        return
    now = machine()
    if now["boot"] != before["boot"]:
        warn("resume", "this machine was started anew since then")
    elif now["killed"] is not None and (killed := _whole(before.get("killed"))) is not None:
        if now["killed"] > killed:
            warn("resume", "Linux has killed a process for memory since that run began, most likely this one")
        else:
            warn(
                "resume",
                "Linux has killed no process for memory since that run began; another program or person ended it",
            )


def _holding(held: int | None, most: int | None) -> str:
    return f", holding {held / 2**30:.1f} of {most / 2**30:.1f} GiB of memory" if held and most else ""


def _last(folder: Path) -> tuple[int | None, str | None, int | None]:
    """Step and held bytes of the last log row, and the time of the last event."""
    try:
        with (folder / EVENTS).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return None, None, None
    when: str | None = None
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(event, dict):
            continue
        when = when or event.get("time")
        if event.get("kind") == "log":
            return _whole(event.get("step")), when, _whole(event.get("resident_bytes"))
    return None, when, None


def _whole(value: Any) -> int | None:
    """A whole number, where a file that anyone may have changed holds one."""
    return value if type(value) is int else None


def _memory() -> int | None:
    found = _figure(MEMORY, "MemTotal:")
    return None if found is None else found * 1024


def _figure(file: Path, name: str) -> int | None:
    for line in _read(file).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
