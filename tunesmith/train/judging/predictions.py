"""Answers on disk: each kept as it is made, and all in one file at the end.  Knows texts and rows' numbers; knows no model.

Until all are there, every process adds to a file of its own, which begins with a fingerprint of all that decides an answer;
the same command finds them again.  A line that was cut off by a kill is made anew.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith.files import open_beside

PREDICTIONS = "generated_predictions.jsonl"
_KEPT = ".generated_predictions-{}.jsonl"


class Row(NamedTuple):
    """A row as it stands in the file: with its control tokens what was asked, without them what was said and wanted."""

    prompt: str
    predict: str
    label: str


class Kept:
    """What was answered so far, by all processes; this one's file is open for more.

    All processes make theirs before any adds: what another one left is read here.
    """

    def __init__(self, folder: Path, fingerprint: str, rank: int):
        self.folder = folder
        self.answers = _read(folder, fingerprint)
        """Row's number -> text."""
        self._own = folder / _KEPT.format(rank)
        self._fingerprint = fingerprint

    def open(self) -> None:
        """Begin to add: what others' files hold too is written into this one, in case that a process less runs now."""
        lines = [self._fingerprint, *({"row": number, "predict": text} for number, text in self.answers.items())]
        with open_beside(self._own) as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())

    def add(self, number: int, text: str) -> None:
        """Keep an answer, in one write, so that a kill leaves it whole or not at all."""
        self.answers[number] = text
        line = json.dumps({"row": number, "predict": text}, ensure_ascii=False) + "\n"
        with open(self._own, "ab", buffering=0) as file:
            file.write(line.encode())

    def gather(self) -> None:
        """Read what all processes have answered by now."""
        self.answers = _read(self.folder, self._fingerprint)

    def publish(self, rows: Iterable[Row]) -> Path:
        """Write all rows into one file, which is whole or not there, and forget what was kept on the way."""
        with open_beside(self.folder / PREDICTIONS) as file:
            for row in rows:
                file.write((json.dumps(row._asdict(), ensure_ascii=False) + "\n").encode())
        for path in _files(self.folder):
            os.unlink(path)
        return self.folder / PREDICTIONS


def _files(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob(_KEPT.format("*")))


def _read(folder: Path, fingerprint: str) -> dict[int, str]:
    """The answers of files that begin with the fingerprint."""
    answers: dict[int, str] = {}
    for path in _files(folder):
        first, *others = path.read_bytes().split(b"\n")[:-1] or [b""]
        if first == json.dumps(fingerprint).encode():
            answers |= {line["row"]: line["predict"] for line in map(json.loads, others)}
    return answers
