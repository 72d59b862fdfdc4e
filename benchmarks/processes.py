"""Whole processes and their children: wall time and memory.  Knows Linux's /proc; knows not what runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

THREADS = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())
"""Threads that each process computes with."""

LOOK_SECONDS = 0.02
"""Time between two looks."""

REST = 100
"""A look at the memory holds a process up, so after one this many times as long is none."""


@dataclass(frozen=True)
class Cost:
    """Seconds from start to exit, and the most memory held: by the process and all below it together when somebody looked,
    or by one of them at any time, whichever is more."""

    seconds: float
    mebibytes: float


@contextmanager
def _ending_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End it too where this program is ended meanwhile: what went on would disturb whatever is measured next."""
    before = signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def compared(ours: list[Cost], theirs: list[Cost]) -> dict[str, tuple[list[float], list[float]]]:
    """Time and memory of both sides' rounds, by what they are."""
    return {
        "whole process, s": ([cost.seconds for cost in ours], [cost.seconds for cost in theirs]),
        "peak memory, MiB": ([cost.mebibytes for cost in ours], [cost.mebibytes for cost in theirs]),
    }


class Lines:
    """When each line of a file came: to be called with the seconds since the start."""

    def __init__(self, file: Path):
        self.file = file
        self.at: list[float] = []

    def __call__(self, seconds: float) -> None:
        if self.file.is_file():
            lines = self.file.read_text(encoding="utf-8").count("\n")
            self.at.extend([seconds] * (lines - len(self.at)))


def run(
    command: list[str], log: Path, environment: Mapping[str, str], look: Callable[[float], None] = lambda seconds: None
) -> Cost:
    """Run a command to its end, its words going to `log`; `look` is called all the while with the seconds since the start.
    Exits when the command fails."""
    peak = due = 0.0
    with open(log, "wb") as words:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        pid = 0
        with _ending_with_us(process):
            while not pid:
                now = time.perf_counter()
                look(now - began)
                if now >= due:
                    peak = max(peak, _highest_mebibytes(process.pid), sum(map(_own_mebibytes, _family(process.pid))))
                    due = now + REST * (time.perf_counter() - now)
                time.sleep(LOOK_SECONDS)
                pid, status = os.waitpid(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}; see {log}")
    return Cost(seconds, peak)


def flags(options: Mapping[str, object]) -> list[str]:
    """`--key value` for each option."""
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def _family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has ended meanwhile
            continue
        for child in children:
            yield from _family(int(child))


def _highest_mebibytes(pid: int) -> float:
    """The most that a process has held since it began: unlike what the system tells at its end, without what this one held
    when it was started."""
    return _of_file(Path(f"/proc/{pid}/status"), "VmHWM:")


def _own_mebibytes(pid: int) -> float:
    """Memory of a process, its part of what it shares with others (PSS)."""
    return _of_file(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _of_file(file: Path, name: str) -> float:
    """A size in a file of the system's, which is told in KiB; 0 where the process has ended meanwhile."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)
