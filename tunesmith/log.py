"""What a run says, where it says it, and the errors a user reads.  Knows ranks; knows nothing of training.

Results go to standard output (`say`); everything about the way there goes to standard error, one line each.  Under a
launcher only rank 0 speaks.  Sentences are told in the language of whoever set a translator.
"""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class TunesmithError(ValueError):
    """A failure that is told to the user as a sentence, never as a traceback.  `exit_code` is the process's."""

    exit_code = 1


class OptionError(TunesmithError):
    """Something the user wrote in a file or on the command line is wrong.  One line per problem."""

    exit_code = 2

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class DataError(TunesmithError):
    """A data file is wrong; the message names file, row and reason."""

    exit_code = 3


class ModelError(TunesmithError):
    """A model folder is incomplete, damaged or does not fit the options; the message names the file or tensor."""

    exit_code = 2


class RunError(TunesmithError):
    """A run had to stop (a non-finite loss, a damaged checkpoint); the message says where and what is left."""

    exit_code = 1


class OutOfMemory(TunesmithError):
    """Memory ran out; the message says what for, and what takes less."""

    exit_code = 4


class MissingExtra(TunesmithError):
    """An optional package is needed and not installed; the message is the command that installs it."""

    exit_code = 5


def is_speaker() -> bool:
    """True on the process that talks: rank 0, or the only one."""
    return os.environ.get("RANK", "0") in ("", "0")


def say(line: str = "") -> None:
    """Print a result on standard output, on rank 0."""
    if is_speaker():
        _show(redacted(line), sys.stdout)


def note(subject: str, text: str) -> None:
    """Tell on standard error what was decided or changed for the user: `note: subject: text`."""
    _tell(f"note: {subject}: {text}")


def warn(subject: str, text: str) -> None:
    """Tell on standard error that something may not be meant: `warning: subject: text`.  `subject` is an option,
    a file or a row."""
    _tell(f"warning: {subject}: {text}")


def error(text: str, code: int = 1) -> None:
    """Tell on standard error why the program stops; any rank may.  `code`: what it will end with."""
    if _teller is None:
        _print(text)
    else:
        _teller(text, code)


def show_error(text: str) -> None:
    """Tell an error here, whoever else was to be told."""
    _print(text)


def keep(text: str) -> None:
    """Let listeners have an error that another process tells."""
    for listener in _listeners:
        listener(redacted(_translator(text) if _translator else text))


def tell_errors_to(teller: Callable[[str, int], None] | None) -> None:
    """Have `teller(text, code)` told why the program stops, from now on, where one speaks for several; None: tell it here."""
    global _teller
    _teller = teller


_teller: Callable[[str, int], None] | None = None


@contextmanager
def muted() -> Iterator[None]:
    """Say no note and no warning inside: for work that is done again where it is told."""
    global _is_muted
    _is_muted = True
    try:
        yield
    finally:
        _is_muted = False


_is_muted = False


def translate_with(translator: Callable[[str], str] | None) -> None:
    """Have every note, warning and error told as `translator` writes it, from now on; None: as it is."""
    global _translator
    _translator = translator


_translator: Callable[[str], str] | None = None


def _tell(line: str) -> None:
    if is_speaker() and not _is_muted:
        _print(line)


def _print(line: str) -> None:
    line = _translator(line) if _translator else line
    line = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], redacted(line))
    _show(line, sys.stderr)
    for listener in _listeners:
        listener(line)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a name from a file could change a terminal with; ends of lines and tabs aside."""


def _show(line: str, stream: TextIO) -> None:
    """Print, and go on where the disk that the output is sent to is full."""
    global _unsaid
    try:
        print(line, file=stream, flush=True)
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if stream is sys.stdout:
            _unsaid = problem


def unsaid() -> OSError | None:
    """Why some result could not be printed; None when all were."""
    return _unsaid


_unsaid: OSError | None = None


def hide(secret: str) -> None:
    """Never show this text again, whoever says it.  Short ones would be found in every other word, and are no secrets."""
    if len(secret) >= SHORTEST_SECRET:
        _hidden.add(secret)


def redacted(text: str) -> str:
    """The text without secrets that are known, and without passwords in addresses (`https://user:password@host`)."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _PASSWORD.sub(r"\1***@", text)


SHORTEST_SECRET = 8
_PASSWORD = re.compile(r"(:/{1,2})[^/\s:@'\"]+:[^/\s@'\"]+@")
_hidden: set[str] = set()

_listeners: list[Callable[[str], None]] = []
"""Functions that also receive each note, warning and error (a run's own log file)."""


def listen(listener: Callable[[str], None]) -> Callable[[], None]:
    """Send a copy of every note, warning and error to `listener(line)`, until the function returned is called."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)
