"""Encoded rows as flat arrays, in memory or mapped from disk, and read by number.  Knows tokens and where rows came from;
knows no format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field

import numpy as np

from tunesmith.data.sample import IGNORED, Sample

PLAIN, GOOD, BAD = 0, 1, 2
"""What a row's answer is: just an answer, one that is chosen or desirable, one that is rejected or undesirable.  The
chosen answer of a pair stands right before its rejected one."""

ARRAYS: dict[str, type[np.generic]] = {
    "ids": np.int32,
    "trained": np.bool_,
    "lengths": np.int32,
    "counts": np.int32,
    "file_of": np.int32,
    "numbers": np.int32,
    "keys": np.uint64,
    "marks": np.uint8,
}


@dataclass(slots=True)
class Rows:
    """Encoded rows, one after another."""

    ids: np.ndarray
    """[tokens]"""
    trained: np.ndarray
    """[tokens]"""
    lengths: np.ndarray
    """[rows]: tokens of each"""
    counts: np.ndarray
    """[rows]: trained tokens of each; its first is never counted, as nothing predicts it"""
    file_of: np.ndarray
    """[rows]: the file it came from, as a number in `files`"""
    numbers: np.ndarray
    """[rows]: its number in its file, from 1"""
    keys: np.ndarray
    """[rows]: equal for equal prompts"""
    marks: np.ndarray
    """[rows]: PLAIN, GOOD or BAD"""
    files: list[str] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, of the types in ARRAYS."""
        return dict(zip(ARRAYS, astuple(self), strict=False))


class ArraySamples:
    """Rows in flat arrays, in any order and choice, which `order` gives."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self.starts = np.concatenate([[0], np.cumsum(rows.lengths, dtype=np.int64)])
        self.order = np.arange(len(rows.lengths))
        self.lengths = np.asarray(rows.lengths)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Sample:
        row = self.order[index]
        place = slice(int(self.starts[row]), int(self.starts[row + 1]))
        ids = np.asarray(self.rows.ids[place])
        return Sample(ids, np.where(self.rows.trained[place], ids, np.int32(IGNORED)))

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
        return int(self.rows.counts[self.order].sum(dtype=np.int64))

    def fingerprint(self) -> str:
        """sha256 over all ids, labels and their order."""
        digest = hashlib.sha256()
        for array in (self.rows.ids, self.rows.trained, self.rows.lengths, self.rows.marks, self.order):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def joined(parts: Iterable[Rows]) -> Rows:
    """Rows of several parts in memory, one part after another."""
    files: dict[str, int] = {}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for part in parts:
        numbers = renumbered(part, files)
        for name, array in part.arrays().items():
            columns[name].append(numbers if name == "file_of" else array)
    empty = {name: np.zeros(0, dtype) for name, dtype in ARRAYS.items()}
    return Rows(
        **{name: np.concatenate(arrays or [empty[name]]) for name, arrays in columns.items()}, files=list(files)
    )


def renumbered(part: Rows, files: dict[str, int]) -> np.ndarray:
    """The part's `file_of` for a table `files` of all parts, to which its files are added.  int32 [rows]."""
    table = np.array([files.setdefault(name, len(files)) for name in part.files], dtype=np.int32)
    return table[part.file_of]
