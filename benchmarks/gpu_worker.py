"""A process that measures, and can be lost: it is told a case's number and answers with a line; one that crashes, stands still
or fails is ended, and the next case gets a fresh one.  Knows processes; knows no case.

One process serves many cases as long as all goes well, for starting one takes as long as measuring a case does.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

START_SECONDS = 180.0
"""How long a process may take to import everything and to find its device."""

MARK = "@@gpu "
"""What an answer's line begins with, as libraries print too."""


class Lost(Exception):
    """Why there is no answer."""


class Worker:
    """Starts `command` when first asked, and again after it was lost.  `errors`: the file that has what it says besides."""

    def __init__(self, command: Sequence[str], errors: Path):
        self.command, self.errors = list(command), errors
        self.first: Any = None
        """What it said when it had started."""
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()

    def ask(self, question: int, seconds: float) -> Any:
        """The answer to a case's number.  Raises Lost after `seconds`, or when the process ends."""
        process = self._process or self._start(seconds)
        assert process.stdin is not None
        try:
            process.stdin.write(f"{question}\n")
            process.stdin.flush()
        except OSError:
            pass  # it has ended, which the answer tells
        return self._answer(seconds)

    def close(self) -> None:
        """End the process; the next question gets a fresh one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _start(self, seconds: float) -> "subprocess.Popen[str]":
        self._answers = queue.Queue()
        with self.errors.open("a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._process = process
        assert process.stdout is not None
        threading.Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()
        self.first = self._answer(min(START_SECONDS, max(seconds, 1.0)))
        return process

    def _answer(self, seconds: float) -> Any:
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise Lost(f"ended after {seconds:.0f} s") from None
        if line is None:
            assert self._process is not None
            code = self._process.wait()
            self.close()
            raise Lost(f"its process ended with {code}: {_last_line(self.errors)}")
        return json.loads(line)


def serve(first: Any, answer: Callable[[int], Any]) -> int:
    """Be such a process: say `first`, then answer questions until there are no more."""
    own = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print
    _say(own, first)
    for line in sys.stdin:
        _say(own, answer(int(line)))
    return 0


def _say(where: TextIO, what: Any) -> None:
    where.write(f"{MARK}{json.dumps(what)}\n")
    where.flush()


def _listen(lines: TextIO, answers: "queue.Queue[str | None]") -> None:
    for line in lines:
        if line.startswith(MARK):
            answers.put(line.removeprefix(MARK))
    answers.put(None)


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:120] if lines else ""
