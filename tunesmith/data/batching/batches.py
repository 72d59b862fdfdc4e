"""Rows -> the stream of batches in windows, exact from any position.  Knows how a division and a batch are asked for; knows
no model and no device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tunesmith.data.batching.collate import join, pad
from tunesmith.data.batching.division import FILLER, Division
from tunesmith.data.batching.fixed import fixed
from tunesmith.data.sample import IGNORED, Batch, Layout, Sample, Samples
from tunesmith.log import OptionError

PADDED = Layout()


@dataclass(slots=True)
class Window:
    """The micro-batches of one optimizer step on one rank."""

    epoch: int
    """From 0."""
    number: int
    """The window's number in its epoch, from 0."""
    batches: list[Batch]
    where: Callable[[int], str]
    """File and row of one of the batches' `rows`, for messages."""
    place: tuple[int, ...] = ()
    """Where a stream stands behind it, which leads back there; prepared rows need only the step's number."""


class Feed(Protocol):
    """What gives a run its windows."""

    @property
    def per_epoch(self) -> int | None:
        """Windows of an epoch; None: not known beforehand."""
        ...

    def windows(
        self, step: int, place: Sequence[int], *, rank: int, pad_id: int, layout: Layout = PADDED
    ) -> Iterator[Window]:
        """One rank's windows without end, from behind step `step`, whose window's place is given."""
        ...

    def epochs(self, step: int, place: Sequence[int]) -> float:
        """Passes over the data up to there, as far as is known."""
        ...

    def lines(self) -> list[str]:
        """What became of rows that were read while training, for the screen."""
        ...


class PreparedFeed:
    """Windows of rows that are all prepared."""

    def __init__(self, samples: Samples, division: Division):
        self.samples, self.division = samples, division
        # Counted once: it may take a look at every row, and progress is told in epochs after every step.
        self._per_epoch = division.per_epoch(samples.lengths) if len(samples) else 0
        if len(samples) and not self._per_epoch:
            at_once = division.batch_size * division.ranks
            raise OptionError(
                f"dataloader_drop_last: leaves nothing: {len(samples)} rows do not fill a micro-batch of {at_once}"
            )

    @property
    def per_epoch(self) -> int | None:
        return self._per_epoch

    def windows(
        self, step: int, place: Sequence[int], *, rank: int, pad_id: int, layout: Layout = PADDED
    ) -> Iterator[Window]:
        return windows(self.samples, self.division, rank=rank, start_window=step, pad_id=pad_id, layout=layout)

    def epochs(self, step: int, place: Sequence[int]) -> float:
        return step / self._per_epoch

    def lines(self) -> list[str]:
        return []


def windows(
    samples: Samples,
    division: Division,
    *,
    rank: int = 0,
    start_window: int = 0,
    epochs: int | None = None,
    pad_id: int = 0,
    layout: Layout = PADDED,
) -> Iterator[Window]:
    """One rank's windows from number `start_window` on, counted over all epochs; without end unless `epochs` is given.

    All ranks get equally many micro-batches; where rows run out, a rank gets one filler row without anything to train."""
    assert len(samples), "no rows, no windows"
    lengths = samples.lengths
    epoch, number = divmod(start_window, division.per_epoch(lengths))
    while epochs is None or epoch < epochs:
        for step, rows in enumerate(division.epoch(lengths, epoch, number), start=number):
            shares = division.micro_batches(rows, lengths, rank)
            batches = [batch_of(samples, share, pad_id, layout) for share in shares]
            yield Window(epoch, step, batches, samples.where)
        epoch, number = epoch + 1, 0


def batch_of(samples: Samples, rows: Sequence[int], pad_id: int, layout: Layout = PADDED) -> Batch:
    """One micro-batch of `rows`, which may be FILLER; see `windows`."""
    found = [samples[row] if row != FILLER else _filler(samples) for row in rows]
    if layout.one_row:
        joined = join(found, rows, share=layout.share, multiple_of=layout.multiple_of)
        return fixed(joined) if layout.few_sizes else joined
    return pad(found, rows, pad_id=pad_id, multiple_of=layout.multiple_of)


def _filler(samples: Samples) -> Sample:
    """A row's first tokens, none of them trained."""
    ids = samples[0].input_ids[:8]
    return Sample(ids, np.full_like(ids, IGNORED))
