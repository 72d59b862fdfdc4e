"""Runs commands in processes whose file operations are counted, struck by a signal, or made to fail.  Knows processes and
`faults.c`; knows no command.

One process imports the heavy libraries with the compiled library preloaded, and forks for each command, so that a run on a
tiny model costs less than a second.
"""

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from surroundings import REPOSITORY, clean_environment

SOURCE = Path(__file__).with_name("faults.c")

PLACES = (REPOSITORY, REPOSITORY / "tests", REPOSITORY / "tests" / "reliability")
"""Where the process finds the package, and what the tests share."""


@dataclass(frozen=True)
class Fault:
    """What happens to a process at its file operation number `at` below a folder: a signal, or failing from there on with
    `error`.  `room`: bytes that can be written before writes fail.  `reads`: opening a file to read it counts as well.
    `memory`: bytes that the process may take of address space beyond what it has; None: as much as there is."""

    at: int = 0
    signal: int = 0
    error: int = 0
    room: int = -1
    reads: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or minus the signal that ended it; what it said; how many file operations it
    made, and the last one that was looked at."""

    code: int
    said: str
    operations: int
    last: str


class Faulty:
    """The process that forks, from its start to its end."""

    def __init__(self, folder: Path, library: Path):
        self._said = folder / "said.txt"
        self._server = subprocess.Popen(
            [sys.executable, "-c", "import faulty, sys; faulty.serve(sys.argv[1])", str(library)],
            env=environment(folder) | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(map(str, PLACES))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self._answer() == "ready", "the process did not start"

    def start(self, root: Path, *words: object, fault: Fault | None = None) -> int:
        """Begin `tunesmith WORDS` in the folder `root`, below which file operations count; prepared data are kept there
        too.  Returns the process's id."""
        self._ask(
            words=[str(word) for word in words],
            root=str(root.resolve()),
            fault=asdict(fault or Fault()),
            said=str(self._said),
            environment=environment(root),
        )
        return self._answer()

    def wait(self) -> Ended:
        """How the command that was begun ended."""
        ended = self._answer()
        return Ended(said=self._said.read_text(encoding="utf-8", errors="replace"), **ended)

    def run(self, root: Path, *words: object, fault: Fault | None = None) -> Ended:
        """`start` and `wait`."""
        self.start(root, *words, fault=fault)
        return self.wait()

    def close(self) -> None:
        """End the process."""
        self._server.communicate()

    def _ask(self, **question: Any) -> None:
        assert self._server.stdin
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()

    def _answer(self) -> Any:
        assert self._server.stdout
        return json.loads(self._server.stdout.readline())


def environment(folder: Path) -> dict[str, str]:
    """What commands live in, their prepared data in `folder`."""
    return clean_environment() | {"TUNESMITH_CACHE": str(folder.resolve() / "cache"), "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="session")
def faults_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`faults.c`, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, for a library that is preloaded")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory, faults_library: Path) -> Iterator[Faulty]:
    """One `Faulty` for all tests of this process."""
    process = Faulty(tmp_path_factory.mktemp("faulty"), faults_library)
    yield process
    process.close()


def serve(path: str) -> None:
    """Import what is heavy, then fork for each question, one at a time, until standard input is closed."""
    import importlib

    from warm import HEAVY

    library = ctypes.CDLL(path)
    library.faults_operations.restype = ctypes.c_long
    library.faults_last.restype = ctypes.c_char_p
    for name in HEAVY:
        importlib.import_module(name)
    _tell("ready")
    for line in sys.stdin:
        question = json.loads(line)
        child = os.fork()
        if not child:
            _be(library, **question)
        _tell(child)
        _, status = os.waitpid(child, 0)
        last = library.faults_last().decode(errors="replace")
        code = os.waitstatus_to_exitcode(status)
        _tell({"code": code, "operations": library.faults_operations(), "last": last})


def _tell(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def _be(
    library: ctypes.CDLL, words: list[str], root: str, fault: dict[str, Any], said: str, environment: dict[str, str]
) -> None:
    """Be the command."""
    from warm import command

    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    at, room = ctypes.c_long(fault["at"]), ctypes.c_long(fault["room"])
    if fault["memory"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + fault["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    library.faults_arm(root.encode(), at, fault["signal"], fault["error"], room, int(fault["reads"]))
    command(words, root, environment, [os.open(os.devnull, os.O_RDONLY), output, os.dup(output)])
