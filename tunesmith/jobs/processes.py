"""Starts one process per device, passes signals on, and ends with the first failure.  Knows no option but a count.

Not torchrun, whose agent answers a signal or a failed rank with a traceback and an exit code of its own; under a
torchrun that the user starts, the same worker runs unchanged.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from glob import glob
from types import FrameType

from tunesmith.log import OptionError

GRACE_SECONDS = 30.0
"""How long the other processes get to finish once one has ended with an error."""

PLACE = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 0}
"""Variables by which a launcher tells a process its place, and their least values."""


def gpus() -> int:
    """GPUs this process may use, counted without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    return len(glob("/proc/driver/nvidia/gpus/*"))


def is_worker() -> bool:
    """Whether a launcher (torchrun or `launch`) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def check_place() -> None:
    """Raise OptionError where the environment has something else than whole numbers for this process's place among others."""
    for name, least in PLACE.items():
        value = os.environ.get(name)
        if value and not (value.isascii() and value.isdigit() and int(value) >= least):
            text = f"must be a whole number, at least {least}, got '{value}'; unset it where no launcher started this process"
            raise OptionError(f"{name}: {text}")


def launch(count: int, command: str, arguments: list[str]) -> int:
    """Run `python -m tunesmith COMMAND ARGUMENTS` in `count` processes; returns the exit code of the first that failed.

    SIGINT and SIGTERM are passed on once each time they arrive; the processes finish their step and save.
    """
    port = _free_port()
    workers = [_start(rank, count, port, [command, *arguments]) for rank in range(count)]

    def forward(signum: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signum)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _wait(workers)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(rank: int, count: int, port: int, arguments: list[str]) -> subprocess.Popen:
    threads = max(1, (os.cpu_count() or 1) // count)
    place = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TUNESMITH_PARENT": os.getpid(),
    }  # fmt: skip
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | {name: str(value) for name, value in place.items()}
    command = [sys.executable, "-m", "tunesmith", *arguments]
    # A session of its own: a Ctrl-C reaches the workers once, through `forward`, not a second time by the terminal.
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _wait(workers: list[subprocess.Popen]) -> int:
    first_failure, deadline = 0, 0.0
    while any(worker.poll() is None for worker in workers):
        if not first_failure and (codes := [w.returncode for w in workers if w.returncode]):
            first_failure, deadline = _exit_code(codes[0]), time.monotonic() + GRACE_SECONDS
            for worker in workers:
                if worker.poll() is None and first_failure < 128:
                    worker.terminate()
        if first_failure and time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.05)
    return first_failure or max(_exit_code(worker.returncode) for worker in workers)


def _exit_code(returncode: int) -> int:
    """A shell's exit code: 128 + the signal's number for a process that a signal ended."""
    return 128 - returncode if returncode < 0 else returncode
