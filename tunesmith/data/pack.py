"""Rows -> rows of full length.  Knows lengths; knows no attention."""

import numpy as np

from tunesmith.data.arrays import ArraySamples
from tunesmith.data.sample import Sample


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
