"""Runs of several processes that are forked from one which has imported everything, so that a test costs seconds.  Knows
processes; knows no promise.

Only how a process is made is the tests' own: the launcher, its workers, their signals and their sockets are as always.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faulty import PLACES, environment

MISLED = Path(__file__).with_name("misled")
"""What Python finds there, it runs first."""

PATIENCE_SECONDS = 240.0
"""How long anything may take on a busy machine before a test gives it up."""


@dataclass(frozen=True)
class Ended:
    """How a run of several processes ended."""

    code: int
    said: str


class Running:
    """A launcher at work in `folder`."""

    def __init__(self, pid: int, folder: Path, said: Path, line: Any):
        self.pid, self.folder, self._said, self._line = pid, folder, said, line

    @property
    def said(self) -> str:
        """All that its processes have said so far."""
        return self._said.read_text(encoding="utf-8", errors="replace") if self._said.exists() else ""

    def wait_for(self, text: str) -> None:
        """Return once it was said."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said:
            assert time.monotonic() < deadline and _is_alive(self.pid), self.said
            time.sleep(0.005)

    def workers(self) -> dict[int, int]:
        """Rank -> process, as far as they have started."""
        file = self.folder / "workers"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return {int(rank): int(pid) for rank, pid in (line.split() for line in lines)}

    def signal(self, signum: int, rank: int | None = None) -> None:
        """Send a signal to the launcher, or to a rank."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid if rank is None else self.workers()[rank], signum)

    def wait(self) -> Ended:
        """How it ended; no process of it is left."""
        code = json.loads(self._line.readline())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left := [pid for pid in self.workers().values() if _is_alive(pid)]:
            assert time.monotonic() < deadline, f"{left} are left: {self.said}"
            time.sleep(0.01)
        return Ended(code, self.said)


class Ranks:
    """The process that forks launchers, from its start to its end."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", "import ranks; ranks.serve()"],
            env=environment(Path("/")) | {"PYTHONPATH": os.pathsep.join(map(str, PLACES))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self._server.stdout and self._server.stdout.readline() == "ready\n", "the process did not start"

    def start(self, folder: Path, *words: object, misled: str = "") -> Running:
        """Begin `tunesmith WORDS` in `folder`.  `misled`: `RANK:MODULE:FUNCTION:CALL:HOW`, see `misled/sitecustomize.py`."""
        assert self._server.stdin and self._server.stdout
        said = folder / "said.txt"
        for old in (said, folder / "workers"):
            old.unlink(missing_ok=True)
        variables = environment(folder) | {"MISLED": misled}
        question = {"words": [str(word) for word in words], "folder": str(folder), "variables": variables}
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return Running(int(self._server.stdout.readline()), folder, said, self._server.stdout)

    def run(self, folder: Path, *words: object, misled: str = "") -> Ended:
        """`start` and `wait`."""
        return self.start(folder, *words, misled=misled).wait()

    def close(self) -> None:
        """End the process."""
        self._server.communicate()


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """One `Ranks` for all tests of this process."""
    process = Ranks()
    yield process
    process.close()


class Forked:
    """A worker as `subprocess.Popen` would have made it."""

    def __init__(self, command: list[str], env: dict[str, str], start_new_session: bool):
        assert start_new_session and command[1:3] == ["-m", "tunesmith"]
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
            _be(command[3:], os.getcwd(), env)
        with open("workers", "a", encoding="utf-8") as file:
            file.write(f"{env['RANK']} {self.pid}\n")

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """As Popen does: only while it lives."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def serve() -> None:
    """Import what is heavy, then fork for each question, one at a time, until standard input is closed."""
    from warm import HEAVY

    for name in HEAVY:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        child = os.fork()
        if not child:
            from tunesmith.jobs import processes

            vars(processes)["subprocess"] = SimpleNamespace(Popen=Forked)
            _be(question["words"], question["folder"], question["variables"])
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be(words: list[str], folder: str, variables: dict[str, str]) -> None:
    """Be the command, misled if so asked."""
    from warm import command

    os.environ.clear()
    os.environ.update(variables)
    sys.path.insert(0, str(MISLED))
    importlib.import_module("sitecustomize").mislead()
    _streams.extend([sys.stdin, sys.stdout, sys.stderr])  # which would close theirs when nobody holds them
    output = os.open(Path(folder) / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    command(words, folder, variables, [os.open(os.devnull, os.O_RDONLY), output, os.dup(output)])


_streams: list[Any] = []


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] != "Z"
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
