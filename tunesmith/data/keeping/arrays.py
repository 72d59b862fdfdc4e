"""Encoded rows as flat arrays, in memory or mapped from disk, and read by number.  Knows tokens and where rows came from;
knows no format."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tunesmith.data.sample import IGNORED, Sample

PLAIN, GOOD, BAD, VARIED = 0, 1, 2, 3
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

READ_AT_ONCE = 1 << 22
"""Values of an array that are hashed in one go."""

WEIGHT = np.float32
"""The type of weights."""


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
    """[rows]: PLAIN, GOOD, BAD, or VARIED: a variation of another sample's prompt."""
    files: list[str] = field(default_factory=list)
    weights: np.ndarray | None = None
    """float32 [tokens]: how much a trained token weighs, 1 for the others; None when all weigh 1"""

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, of the types in ARRAYS."""
        return {
            "ids": self.ids,
            "trained": self.trained,
            "lengths": self.lengths,
            "counts": self.counts,
            "file_of": self.file_of,
            "numbers": self.numbers,
            "keys": self.keys,
            "marks": self.marks,
        }


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
        ids, trained = np.asarray(self.rows.ids[place]), self.rows.trained[place]
        return Sample(ids, np.where(trained, ids, np.int32(IGNORED)), weights=self._weights(place))

    def _weights(self, place: slice) -> np.ndarray | None:
        if self.rows.weights is None or (self.rows.weights[place] == 1).all():
            return None
        return np.where(self.rows.trained[place], self.rows.weights[place], WEIGHT(0))

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
        """sha256 over all ids, labels, weights other than 1, and their order."""
        digest, rows = hashlib.sha256(), self.rows
        for array in (rows.ids, rows.trained, rows.lengths, rows.marks, self.order, rows.weights):
            for part in () if array is None else _parts(array):
                digest.update(part)
        return digest.hexdigest()


def _parts(array: np.ndarray) -> Iterator[memoryview]:
    """An array's bytes, part by part.  Those of a mapped one are let go again, so that they do not all count as this
    process's memory."""
    whole = np.ascontiguousarray(array)
    for start in range(0, len(whole), READ_AT_ONCE):
        yield whole[start : start + READ_AT_ONCE].data
        if isinstance(array.base, mmap.mmap):
            array.base.madvise(mmap.MADV_DONTNEED)


def joined(parts: Iterable[Rows]) -> Rows:
    """Rows of several parts in memory, one part after another."""
    parts, files = list(parts), dict[str, int]()
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for part in parts:
        numbers = renumbered(part, files)
        for name, array in part.arrays().items():
            columns[name].append(numbers if name == "file_of" else array)
    empty = {name: np.zeros(0, dtype) for name, dtype in ARRAYS.items()}
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate([p.weights if p.weights is not None else np.ones(len(p.ids), WEIGHT) for p in parts])
    return Rows(
        **{name: np.concatenate(arrays or [empty[name]]) for name, arrays in columns.items()},
        files=list(files),
        weights=weights,
    )


def renumbered(part: Rows, files: dict[str, int]) -> np.ndarray:
    """The part's `file_of` for a table `files` of all parts, to which its files are added.  int32 [rows]."""
    table = np.array([files.setdefault(name, len(files)) for name in part.files], dtype=np.int32)
    return table[part.file_of]
