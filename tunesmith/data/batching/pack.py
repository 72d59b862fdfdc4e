"""Samples -> rows of full length: plain text cut into blocks, conversations laid side by side.  Knows lengths; knows no
attention."""

import hashlib
from collections.abc import Sequence

import numpy as np

from tunesmith.data.keeping.arrays import ArraySamples
from tunesmith.data.sample import IGNORED, Sample


class Blocks:
    """All rows' tokens one after another, cut into blocks of `block_tokens`: how plain text is trained on.  The last
    block may be short."""

    def __init__(self, samples: ArraySamples, block_tokens: int):
        self.samples, self.block_tokens = samples, block_tokens
        self.ends = np.cumsum(samples.lengths, dtype=np.int64)
        total = int(self.ends[-1]) if len(self.ends) else 0
        starts = np.arange(0, total, block_tokens)
        self.lengths = np.minimum(total - starts, block_tokens).astype(np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        first, last = self._range(index)
        rows = range(self._row_at(first), self._row_at(last - 1) + 1)
        parts = [self.samples[row] for row in rows]
        skip = first - (int(self.ends[rows[0]]) - int(self.samples.lengths[rows[0]]))
        ids = np.concatenate([part.input_ids for part in parts])[skip : skip + last - first]
        labels = np.concatenate([part.labels for part in parts])[skip : skip + last - first]
        return Sample(ids, labels)

    def where(self, index: int) -> str:
        """File and row in which the block begins."""
        return f"block from {self.samples.where(self._row_at(self._range(index)[0]))}"

    def trained_tokens(self) -> int:
        """Tokens that are trained: all but each block's first, which nothing predicts."""
        return int(self.lengths.sum(dtype=np.int64)) - len(self)

    def fingerprint(self) -> str:
        """sha256 over all ids, labels and their order."""
        return f"{self.samples.fingerprint()}/{self.block_tokens}"

    def _range(self, index: int) -> tuple[int, int]:
        first = index * self.block_tokens
        return first, first + int(self.lengths[index])

    def _row_at(self, token: int) -> int:
        return int(np.searchsorted(self.ends, token, side="right"))


WINDOW_ROWS = 100_000
"""Samples among which neighbours for a row are looked for."""


class Packed:
    """Rows of at most `row_tokens` tokens, each with several samples.  `isolated`: the samples in a row never see each
    other, which `Sample.parts` tells the batch; otherwise a row is one text."""

    def __init__(self, samples: ArraySamples, row_tokens: int, *, seed: int, isolated: bool = True):
        self.samples, self.row_tokens, self.isolated = samples, row_tokens, isolated
        rows = fill(samples.lengths, row_tokens, seed)
        self.members = (
            np.concatenate([np.array(row, dtype=np.int64) for row in rows]) if rows else np.zeros(0, np.int64)
        )
        self.ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
        self.lengths = np.array([samples.lengths[row].sum() for row in rows], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        parts = [self.samples[member] for member in self._members(index)]
        labels = np.concatenate([part.labels for part in parts])
        if self.isolated:
            starts = np.cumsum([0, *(len(part.labels) for part in parts[:-1])])
            labels[starts] = IGNORED  # nothing that a sample may see comes before its first token
        lengths = tuple(len(part.input_ids) for part in parts) if self.isolated else ()
        return Sample(np.concatenate([part.input_ids for part in parts]), labels, lengths, _weights(parts, labels))

    def where(self, index: int) -> str:
        """File and row of the first sample in a row, and how many more there are."""
        first, *others = self._members(index)
        return self.samples.where(first) + (f" and {len(others)} more" if others else "")

    @property
    def fill_rate(self) -> float:
        """Tokens in rows, divided by the tokens they have room for."""
        return float(self.lengths.sum(dtype=np.int64)) / max(len(self) * self.row_tokens, 1)

    def trained_tokens(self) -> int:
        """Tokens that are trained: in isolated rows as many as without packing."""
        if self.isolated:
            return self.samples.trained_tokens()
        return sum(int((self[index].labels[1:] != IGNORED).sum()) for index in range(len(self)))

    def fingerprint(self) -> str:
        """sha256 over all ids, labels and how they lie in rows."""
        rows = hashlib.sha256(self.members.tobytes() + self.ends.tobytes()).hexdigest()
        return f"{self.samples.fingerprint()}/{rows}/{self.isolated}"

    def _members(self, index: int) -> list[int]:
        start = int(self.ends[index - 1]) if index else 0
        members: list[int] = self.members[start : int(self.ends[index])].tolist()
        return members


def _weights(parts: Sequence[Sample], labels: np.ndarray) -> np.ndarray | None:
    """Weights of a row of samples with these labels; None when no sample has any."""
    if all(part.weights is None for part in parts):
        return None
    weights = [np.ones(len(part.labels), np.float32) if part.weights is None else part.weights for part in parts]
    return np.where(labels != IGNORED, np.concatenate(weights), np.float32(0))


def fill(lengths: np.ndarray, row_tokens: int, seed: int) -> list[list[int]]:
    """Samples' numbers by row: each sample, the longest first, goes into the fullest row that still has room for it.

    `lengths` [samples], none above `row_tokens`.  Done among WINDOW_ROWS samples at a time, drawn in a seeded order."""
    assert lengths.max(initial=0) <= row_tokens, "a sample is longer than a row"
    order = np.random.default_rng([seed, *b"packing"]).permutation(len(lengths))
    rows: list[list[int]] = []
    for start in range(0, len(order), WINDOW_ROWS):
        window = order[start : start + WINDOW_ROWS]
        longest_first = window[np.argsort(-lengths[window], kind="stable")]
        rows += _best_fit(longest_first.tolist(), lengths[longest_first].tolist(), row_tokens)
    return rows


def _best_fit(samples: Sequence[int], lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(row_tokens + 1)]
    """Numbers of the rows that have so many tokens left."""
    rooms = 0
    """Bit `n` is set when some row has `n` tokens left."""
    for sample, length in zip(samples, lengths, strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            rows[row].append(sample)
        else:
            room, row = row_tokens, len(rows)
            rows.append([sample])
        if room > length:
            with_room[room - length].append(row)
            rooms |= 1 << (room - length)
    return rows


Filled = ArraySamples | Blocks | Packed
"""What is trained: samples as they are, plain text in blocks, or packed rows."""


def filled(samples: ArraySamples, kind: str, row_tokens: int, packing: bool | str, seed: int) -> Filled:
    """The rows to train on that samples of a kind give."""
    if kind == "text":
        return Blocks(samples, row_tokens)
    return Packed(samples, row_tokens, seed=seed, isolated=packing is True) if packing else samples
