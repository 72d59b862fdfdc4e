"""How threads of a computation wait for one another.  Knows the machine's load; imports no torch.

GNU's OpenMP has a thread that is done spin for a while and then sleep.  Waking it takes longer than many of a small model's
operations, so that on a quiet machine a few more turns save a twentieth of the time; where others want the cores too, each
turn is taken from the thread that is waited for, and a step may take several times as long.
"""

import os
import time
from pathlib import Path

QUIET, BUSY = 4000, 1000
"""Turns, where every thread has a core of its own and where it may have none.  OpenMP's own are 300,000."""

LOOKS, SECONDS = 5, 1e-3
"""How often the machine is looked at, and how long after one another: a moment says little."""


def wait_quietly() -> None:
    """Have threads spin for as long as suits this machine now, unless that is said in the environment; before torch is
    imported, whose OpenMP reads this when it is loaded."""
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = str(BUSY if is_busy() else QUIET)


def is_busy() -> bool:
    """Whether so much runs on this machine that not every thread of ours would find a core; True where nobody can tell."""
    counts = []
    for _ in range(LOOKS):
        try:
            counts.append(running())
        except (OSError, ValueError, IndexError):
            return True
        time.sleep(SECONDS)
    return sorted(counts)[LOOKS // 2] - 1 + _threads() > (os.cpu_count() or 1)


def running(path: Path = Path("/proc/loadavg")) -> int:
    """Threads that run or want to, all programs' and this one's, as Linux counts them."""
    return int(path.read_text(encoding="ascii").split()[3].partition("/")[0])


def _threads() -> int:
    written = os.environ.get("OMP_NUM_THREADS", "")
    return int(written) if written.isdigit() else len(os.sched_getaffinity(0))
