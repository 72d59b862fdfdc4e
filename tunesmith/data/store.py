"""Encoded rows as flat arrays: gathered chunk by chunk, read by number.  Knows tokens and where rows came from; knows no
format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.data.sample import IGNORED, Sample

PLAIN, GOOD, BAD = 0, 1, 2
"""What a row's answer is: just an answer, one that is chosen or desirable, one that is rejected or undesirable.  The
chosen answer of a pair stands right before its rejected one."""


@dataclass(slots=True)
class Chunk:
    """Some encoded rows, one after another."""

    ids: np.ndarray
    """int32 [tokens]"""
    trained: np.ndarray
    """bool [tokens]"""
    lengths: np.ndarray
    """int32 [rows]"""
    files: list[str]
    """Names of the files the rows came from."""
    file_of: np.ndarray
    """int32 [rows], into `files`"""
    numbers: np.ndarray
    """int32 [rows]: each row's number in its file, from 1"""
    keys: np.ndarray
    """uint64 [rows]: equal for equal prompts"""
    marks: np.ndarray
    """uint8 [rows]: PLAIN, or what an answer is worth"""


class ArraySamples:
    """Rows in flat arrays, in any order and choice, which `order` gives."""

    def __init__(self, rows: Chunk, order: np.ndarray | None = None):
        self.rows = rows
        self.starts = np.concatenate([[0], np.cumsum(rows.lengths, dtype=np.int64)])
        self.order = np.arange(len(rows.lengths)) if order is None else order
        self.lengths = rows.lengths[self.order]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Sample:
        place = self.place(index)
        ids = self.rows.ids[place]
        return Sample(ids, np.where(self.rows.trained[place], ids, np.int32(IGNORED)))

    def place(self, index: int) -> slice:
        """Where a row's tokens lie in the flat arrays."""
        row = self.order[index]
        return slice(int(self.starts[row]), int(self.starts[row + 1]))

    def where(self, index: int) -> str:
        """File and row it came from."""
        row = self.order[index]
        return f"{self.rows.files[self.rows.file_of[row]]} row {self.rows.numbers[row]}"

    def choose(self, places: np.ndarray) -> ArraySamples:
        """Some of these rows, in the given order, over the same arrays."""
        chosen = ArraySamples.__new__(ArraySamples)
        chosen.rows, chosen.starts, chosen.order = self.rows, self.starts, self.order[places]
        chosen.lengths = self.lengths[places]
        return chosen

    @property
    def keys(self) -> np.ndarray:
        """uint64 [rows]: equal for equal prompts."""
        return self.rows.keys[self.order]

    @property
    def marks(self) -> np.ndarray:
        """uint8 [rows]: what each row's answer is."""
        return self.rows.marks[self.order]

    def source_rows(self) -> int:
        """Rows of the data that these samples came from: a pair or a split conversation is several samples."""
        places = self.rows.file_of[self.order], self.rows.numbers[self.order]
        return int(len(self) and 1 + np.any([np.diff(each) != 0 for each in places], axis=0).sum())

    def trained_tokens(self) -> int:
        """Tokens that are trained, over all rows; a row's first token never is."""
        counts = np.concatenate([[0], np.cumsum(self.rows.trained, dtype=np.int64)])
        first = (
            self.rows.trained[np.minimum(self.starts[:-1], len(self.rows.trained) - 1)] if len(self.rows.trained) else 0
        )
        return int((counts[self.starts[1:]] - counts[self.starts[:-1]] - first)[self.order].sum())

    def fingerprint(self) -> str:
        """sha256 over all ids, labels and their order."""
        digest = hashlib.sha256()
        for array in (self.rows.ids, self.rows.trained, self.rows.lengths, self.rows.marks, self.order):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(slots=True)
class Gatherer:
    """Gathers chunks into samples."""

    chunks: list[Chunk] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        """Append rows."""
        self.chunks.append(chunk)

    def samples(self) -> ArraySamples:
        """All rows that were added."""
        files: dict[str, int] = {}
        file_of = [
            np.array([files.setdefault(name, len(files)) for name in chunk.files], dtype=np.int32)[chunk.file_of]
            for chunk in self.chunks
        ]
        rows = Chunk(
            _joined([chunk.ids for chunk in self.chunks], np.int32),
            _joined([chunk.trained for chunk in self.chunks], np.bool_),
            _joined([chunk.lengths for chunk in self.chunks], np.int32),
            list(files),
            _joined(file_of, np.int32),
            _joined([chunk.numbers for chunk in self.chunks], np.int32),
            _joined([chunk.keys for chunk in self.chunks], np.uint64),
            _joined([chunk.marks for chunk in self.chunks], np.uint8),
        )
        self.chunks.clear()
        return ArraySamples(rows)


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
