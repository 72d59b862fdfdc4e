"""An option as someone wrote it, the place where, and the problems found there.  Knows no option by name."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.config.shapes import shown
from tunesmith.log import OptionError

LONGEST_LINE = 600

LONGEST_WORD, SHOWN_OF_WORD = 300, 60
"""Characters without a space from which on a word is shortened, so that what is allowed stands behind it all the same."""

MOST_TOLD = 20
"""Problems told one by one; a file that is something else has thousands."""


SECRET = ("token", "key", "secret", "password")
"""Options and variables whose names hold one of these words, as a whole part, never reach the disk or the screen."""


def is_secret(name: str) -> bool:
    """Whether an option or an environment variable holds something that must not be written down."""
    return any(part in SECRET for part in name.lower().split("_")) and not name.startswith(
        ("add_", "skip_", "allow_", "include_", "max_", "split_")
    )


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written: the n-th layer (files in order, then the command line) and its line or word."""

    layer: int
    line: int
    source: Path | None = field(default=None, compare=False)
    """The file; None for the command line."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.source else "command line"


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Written:
    """`name` is spelled with underscores; `shown` as in its source; `is_text`: a command line's, not yet a value."""

    name: str
    value: Any
    place: Place
    shown: str
    is_text: bool

    def seen(self) -> str:
        """The value as it was typed; of a file, as errors show values; of a secret, nothing."""
        if is_secret(self.name):
            return "(not shown)"
        return str(self.value) if self.is_text else shown(self.value)

    def origin(self, canonical: str) -> str:
        """The place, and the spelling where it is not our own."""
        return str(self.place) if self.name == canonical else f"{self.place} ({self.shown})"


class ConfigError(OptionError):
    """Every problem of the options at once, in reading order, one to a line."""

    def __str__(self) -> str:
        count = len(self.problems)
        more = [f"and {count - MOST_TOLD:,} more of this kind"] if count > MOST_TOLD else []
        sum_up = f"{count} problem{'s' * (count != 1)}; nothing was started."
        return "\n".join((*self.problems[:MOST_TOLD], *more, sum_up))


@dataclass(frozen=True)
class Source:
    """A config file that is being read: its path, its layer, and where its problems go."""

    path: Path
    layer: int
    problems: "Problems"

    def place(self, line: int) -> Place:
        """A line of this file, counted from 1."""
        return Place(self.layer, line, self.path)

    def problem(self, line: int, text: str) -> None:
        """Note a problem in a line."""
        self.problems.add(self.place(line), text)


class Problems:
    """Collects what is wrong, to be told at once and in the order of reading; and remarks, told when nothing is."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, str]] = []
        self._remarks: list[tuple[Callable[[str, str], None], str, str]] = []
        self.doubted: set[str] = set()

    def add(self, place: Place, text: str, *about: str) -> None:
        """Note a problem at a place: `my.yaml:4: text`.  No further problem is told about the options in `about`."""
        self.doubted.update(about)
        line = "".join(one if one.isprintable() else " " for one in f"{place}: {text}")
        line = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: f"{word[0][:SHOWN_OF_WORD]}...", line)
        self._found.append((place, line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."))

    @property
    def are_many(self) -> bool:
        """Whether more were found than will be told, so that guessing what was meant is no use."""
        return len(self._found) > MOST_TOLD

    def remark(self, teller: Callable[[str, str], None], subject: str, text: str) -> None:
        """Keep a line for `teller`, which is log.note or log.warn."""
        self._remarks.append((teller, subject, text))

    def tell(self, quiet: bool = False) -> None:
        """ConfigError with every problem if there is any; otherwise say the remarks, each once, unless `quiet`."""
        if self._found:
            raise ConfigError(*(text for _, text in sorted(self._found, key=lambda found: found[0])))
        for teller, subject, text in () if quiet else dict.fromkeys(self._remarks):
            teller(subject, text)
