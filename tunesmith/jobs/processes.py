"""Starts one process per device, passes signals on, and ends them all when one fails.  Knows no option but a count and a time.

Not torchrun, whose agent answers a signal or a failed rank with a traceback and an exit code of its own; under a
torchrun that the user starts, the same worker runs unchanged.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from types import FrameType

from tunesmith import log
from tunesmith.jobs import watch
from tunesmith.jobs.hub import End, Hub
from tunesmith.log import OptionError

AT_ONCE_SECONDS = 5.0
"""How long processes get to leave that are told to at once, before they are killed."""

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a run."""

PLACE = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 0}
"""Variables by which a launcher tells a process its place, and their least values."""


DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")
"""What is there where a GPU can be used: Linux's driver, the same in a container, and Windows' under WSL."""


def gpus() -> int:
    """GPUs this process may use, counted without importing torch."""
    if not any(Path(path).exists() for path in DRIVERS):
        return 0
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
    if not is_worker():
        return
    count = int(os.environ["WORLD_SIZE"] or 1)
    if (rank := int(os.environ["RANK"] or 0)) >= count:
        raise OptionError(
            f"RANK: {rank} is none of {count} processes (WORLD_SIZE); unset both where no launcher started this one"
        )
    if count > 1 and (missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]):
        raise OptionError(
            f"{missing[0]}: not set, and {count} processes meet there (WORLD_SIZE); a launcher such as torchrun sets it"
        )


def launch(count: int, command: str, arguments: list[str], timeout_seconds: float) -> int:
    """Run `python -m tunesmith COMMAND ARGUMENTS` in `count` processes; returns the exit code of the first that failed.

    One that fails, is killed, or lets the others wait for `timeout_seconds` ends the run, with one error.  SIGINT and
    SIGTERM are passed on; the processes finish their step and save.  The second one ends those that do not listen.
    """
    port = _free_port()
    with Hub(count, timeout_seconds, is_parent=True) as hub:
        address = f"127.0.0.1:{hub.port}:{hub.token}"
        workers = Workers()
        before = {signum: signal.signal(signum, workers.forward) for signum in STOPPING}
        try:
            for rank in range(count):
                with _held_back():
                    process = _start(rank, count, port, address, [command, *arguments])
                workers.add(process)
            return workers.wait(hub)
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


@contextmanager
def _held_back() -> Iterator[None]:
    """Keep signals waiting while a process is made, which begins with them waiting: it is not ready for any until it calls
    `listen_again`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listen_again() -> None:
    """Let this process have the signals that its launcher kept waiting."""
    if watch.VARIABLE in os.environ:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


class Workers:
    """The processes of a run, until all have ended."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen] = []
        self._forwarded: list[int] = []
        self._deadline: float | None = None

    def add(self, process: subprocess.Popen) -> None:
        """Count a process in, which gets the signals that came before."""
        self.processes.append(process)
        for signum in self._forwarded:
            process.send_signal(signum)

    def forward(self, signum: int, frame: FrameType | None) -> None:
        """Pass a signal on; after the second one processes are killed that stay."""
        self._forwarded.append(signum)
        if len(self._forwarded) > 1:
            self._kill_in(AT_ONCE_SECONDS)
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signum)

    def wait(self, hub: Hub) -> int:
        """Listen to the processes and end them when there is a reason; returns the exit code."""
        why: End | None = None
        while any(process.poll() is None for process in self.processes) or (why is None and self._failed()):
            hub.serve(0.05)
            for rank, process in enumerate(self.processes):
                if (code := process.poll()) is not None:
                    # A process that a signal met before it listened was stopped as it was asked to.
                    hub.ended(rank, 128 - code if -code in self._forwarded else code)
            if why is None and (why := hub.verdict()):
                if why.text:
                    log.error(why.text)
                hub.end(why)
                self._kill_in(AT_ONCE_SECONDS if why.at_once else watch.GRACE_SECONDS + AT_ONCE_SECONDS)
            if self._deadline is not None and time.monotonic() > self._deadline:
                for process in self.processes:
                    process.kill()
        return why.code if why else 0

    def _failed(self) -> bool:
        return any(process.returncode for process in self.processes)

    def _kill_in(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(rank: int, count: int, port: int, hub: str, arguments: list[str]) -> subprocess.Popen:
    threads = max(1, (os.cpu_count() or 1) // count)
    place = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TUNESMITH_PARENT": os.getpid(),
        watch.VARIABLE: hub,
    }  # fmt: skip
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | {name: str(value) for name, value in place.items()}
    command = [sys.executable, "-m", "tunesmith", *arguments]
    # A session of its own: a Ctrl-C reaches the workers once, through `forward`, not a second time by the terminal.
    return subprocess.Popen(command, env=environment, start_new_session=True)
