"""What a run's data amounts to: rows, tokens, lengths, padding, steps.  Counts; knows no row's words and no screen."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunesmith.data.batching.division import FILLER, Division
from tunesmith.data.batching.pack import Blocks, Packed
from tunesmith.data.pipeline import Prepared
from tunesmith.data.sample import Samples
from tunesmith.data.telling.report import Report

BINS = 12
"""Most bars of the histogram of lengths."""

BAR_WIDTH = 40
"""Characters of the longest bar."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Samples of `first` to `last` tokens."""

    first: int
    last: int
    samples: int

    @property
    def range(self) -> str:
        """Its tokens, in words."""
        return f"{self.first:,}-{self.last:,}"


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything counted, ready for JSON.  Shares are fractions from 0 to 1."""

    rows_read: int
    rows_kept: int
    rows_evaluated: int
    dropped: int
    dropped_by_reason: dict[str, int]
    cut: int
    split: int
    samples: int
    tokens: int
    trained_tokens: int
    trained_fraction: float
    longest: int
    cutoff_len: int
    lengths: list[Bin]
    """Of samples as they are before they are packed into rows, or cut into blocks."""
    padding: float
    """Share of padding in the first epoch's micro-batches, for a model that needs rows of one length."""
    fill_rate: float | None
    """Of packed rows: tokens, divided by those there is room for; None without packing."""
    rows_per_step: float
    """Rows of an optimizer step; of steps that are filled by tokens, the mean."""
    steps_per_epoch: int | None
    """None: rows are streamed, and nobody knows."""
    steps: int
    streamed: bool = False
    """Rows are streamed: all but `steps` is of those that were read so far."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What the report does not say: lengths, padding, steps."""
        most = max((bin.samples for bin in self.lengths), default=1)
        width = max((len(bin.range) for bin in self.lengths), default=0)
        lines = []
        for number, bin in enumerate(self.lengths):
            bar = "#" * max(round(BAR_WIDTH * bin.samples / most), bin.samples > 0)
            lines.append(f"{'' if number else 'lengths':13} {bin.range:>{width}} {bin.samples:>9,} {bar}".rstrip())
        lines.append(f"padding       {self.padding:.1%} where a model needs rows of one length; most need none")
        each = f"{self.rows_per_step:,.4g} rows each"
        if self.steps_per_epoch is None:
            about = f"              all but the steps is of the first {self.rows_read:,} rows; the others are streamed"
            return [*lines, f"steps         {self.steps:,} of {each}", about]
        return [*lines, f"steps         {self.steps_per_epoch:,} an epoch of {each}, {self.steps:,} in all"]


def count(prepared: Prepared, division: Division, *, steps: int) -> Totals:
    """The totals of a run's data, which falls into `steps` optimizer steps in all."""
    report: Report = prepared.report
    tallies, train = report.tallies, prepared.train
    per_epoch = division.per_epoch(train.lengths) if len(train) else 0
    by_tokens = division.way == "token_budget" and per_epoch
    return Totals(
        rows_read=sum(report.read.values()),
        rows_kept=report.kept,
        rows_evaluated=report.evaluated,
        dropped=sum(tally.count for tally in tallies.dropped.values()),
        dropped_by_reason={reason: tally.count for reason, tally in tallies.dropped.items()},
        cut=tallies.cut.count,
        split=tallies.divided.count,
        samples=report.samples,
        tokens=report.tokens,
        trained_tokens=report.trained_tokens,
        trained_fraction=report.trained_tokens / max(report.tokens, 1),
        longest=report.longest,
        cutoff_len=report.cutoff_len,
        lengths=histogram(_before_filling(train).lengths),
        padding=padding(train, division),
        fill_rate=report.fill_rate,
        rows_per_step=len(train) / per_epoch if by_tokens else division.window_rows,
        steps_per_epoch=per_epoch if prepared.stream is None else None,
        steps=steps if len(train) else 0,
        streamed=prepared.stream is not None,
    )


def _before_filling(samples: Samples) -> Samples:
    """The samples from which blocks or packed rows are made."""
    return samples.samples if isinstance(samples, Blocks | Packed) else samples


def histogram(lengths: np.ndarray) -> list[Bin]:
    """How many samples there are of which length, in at most BINS bins of a round width."""
    if not len(lengths):
        return []
    longest = int(lengths.max())
    width = next(width for width in _round_numbers() if width * BINS >= longest)
    counts = np.bincount((lengths - 1) // width)
    return [
        Bin(index * width + 1, min((index + 1) * width, longest), int(samples)) for index, samples in enumerate(counts)
    ]


def _round_numbers() -> Iterable[int]:
    """1, 2, 5, 10, 20, 50, ..."""
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def padding(samples: Samples, division: Division) -> float:
    """Share of padding in the micro-batches of the first epoch."""
    lengths, computed = samples.lengths, 0
    for window in division.epoch(lengths, 0) if len(samples) else ():
        for rank in range(division.ranks):
            for rows in division.micro_batches(window, lengths, rank):
                if rows != [FILLER]:
                    computed += len(rows) * int(lengths[rows].max())
    return 1 - int(lengths.sum(dtype=np.int64)) / computed if computed else 0.0
