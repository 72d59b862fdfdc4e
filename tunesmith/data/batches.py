"""Rows -> the stream of batches in windows, exact from any position.  Knows how a division and a batch are asked for; knows
no model and no device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.data.collate import in_one_row, pad
from tunesmith.data.division import FILLER, Division
from tunesmith.data.sample import IGNORED, Batch, Sample, Samples


@dataclass(slots=True)
class Window:
    """The micro-batches of one optimizer step on one rank."""

    epoch: int
    """From 0."""
    number: int
    """The window's number in its epoch, from 0."""
    batches: list[Batch]


def windows(
    samples: Samples,
    division: Division,
    *,
    rank: int = 0,
    start_window: int = 0,
    epochs: int | None = None,
    pad_id: int = 0,
    multiple_of: int = 1,
    one_row: bool = False,
) -> Iterator[Window]:
    """One rank's windows from number `start_window` on, counted over all epochs; without end unless `epochs` is given.

    All ranks get equally many micro-batches; where rows run out, a rank gets one filler row without anything to train.
    `one_row`: rows of packed samples lie behind one another in a single row."""
    assert len(samples), "no rows, no windows"
    lengths = samples.lengths
    epoch, number = divmod(start_window, division.per_epoch(lengths))
    while epochs is None or epoch < epochs:
        for step, rows in list(enumerate(division.epoch(lengths, epoch)))[number:]:
            shares = division.micro_batches(rows, lengths, rank)
            yield Window(epoch, step, [_batch(samples, share, pad_id, multiple_of, one_row) for share in shares])
        epoch, number = epoch + 1, 0


def _batch(samples: Samples, rows: Sequence[int], pad_id: int, multiple_of: int, one_row: bool) -> Batch:
    found = [samples[row] if row != FILLER else _filler(samples) for row in rows]
    batch = pad(found, rows, pad_id=pad_id, multiple_of=multiple_of)
    return in_one_row(batch) if one_row and batch.packed else batch


def _filler(samples: Samples) -> Sample:
    """A row's first tokens, none of them trained."""
    ids = samples[0].input_ids[:8]
    return Sample(ids, np.full_like(ids, IGNORED))
