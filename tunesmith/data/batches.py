"""The order of rows and how they fall into optimizer steps, micro-batches and ranks; exact from any position.  Knows rows'
numbers; knows no model and no device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.data.collate import in_one_row, pad
from tunesmith.data.sample import IGNORED, Batch, Sample, Samples

FILLER = -1
"""The number of a row that only fills up a rank; nothing in it is trained."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order of `rows` rows in each epoch: the same on every machine, whatever came before."""

    rows: int
    seed: int
    shuffle: bool = True

    def epoch(self, number: int) -> np.ndarray:
        """Rows' numbers in the order of epoch `number` (from 0), int64 [rows]."""
        if not self.shuffle:
            return np.arange(self.rows)
        return np.random.default_rng([self.seed, number]).permutation(self.rows)


@dataclass(slots=True)
class Window:
    """The micro-batches of one optimizer step on one rank."""

    epoch: int
    """From 0."""
    number: int
    """The window's number in its epoch, from 0."""
    batches: list[Batch]


def windows_per_epoch(rows: int, window_rows: int) -> int:
    """Optimizer steps in an epoch of `rows` rows, `window_rows` in each; the last may be short."""
    return -(-rows // window_rows)


def windows(
    samples: Samples,
    *,
    batch_size: int,
    accumulation: int,
    ranks: int,
    rank: int,
    seed: int,
    shuffle: bool,
    start_window: int = 0,
    epochs: int | None = None,
    pad_id: int = 0,
    multiple_of: int = 1,
    one_row: bool = False,
) -> Iterator[Window]:
    """The windows from number `start_window` on, counted over all epochs; without end unless `epochs` is given.

    A window holds the next `batch_size * accumulation * ranks` rows of its epoch's order, however they are divided, so
    1 x 16, 2 x 8 and 16 x 1, on one rank or several, train the same rows in each step.  All ranks get equally many
    micro-batches; where rows run out, a rank gets one filler row without anything to train.  `one_row`: rows of packed
    samples lie behind one another in a single row."""
    assert len(samples), "no rows, no windows"
    order = Order(len(samples), seed, shuffle)
    size = batch_size * accumulation * ranks
    steps = windows_per_epoch(len(samples), size)
    epoch, number = divmod(start_window, steps)
    while epochs is None or epoch < epochs:
        permutation = order.epoch(epoch)
        for step in range(number, steps):
            shares = divide(permutation[step * size : (step + 1) * size], batch_size, ranks, rank)
            yield Window(epoch, step, [_batch(samples, rows, pad_id, multiple_of, one_row) for rows in shares])
        epoch, number = epoch + 1, 0


def divide(rows: np.ndarray, batch_size: int, ranks: int, rank: int) -> list[list[int]]:
    """One rank's share of a window's rows as micro-batches; FILLER alone where nothing is left for it."""
    turns = -(-len(rows) // (batch_size * ranks))
    starts = ((turn * ranks + rank) * batch_size for turn in range(turns))
    return [rows[start : start + batch_size].tolist() or [FILLER] for start in starts]


def _batch(samples: Samples, rows: Sequence[int], pad_id: int, multiple_of: int, one_row: bool) -> Batch:
    found = [samples[row] if row != FILLER else _filler(samples) for row in rows]
    batch = pad(found, rows, pad_id=pad_id, multiple_of=multiple_of)
    return in_one_row(batch) if one_row and batch.packed else batch


def _filler(samples: Samples) -> Sample:
    """A row's first tokens, none of them trained."""
    ids = samples[0].input_ids[:8]
    return Sample(ids, np.full_like(ids, IGNORED))
