"""The rows of an epoch as they are read: datasets joined, and shuffled in a buffer.  Knows rows and a seed; knows no token
and holds no more rows than the buffer does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tunesmith.data.reading import mix
from tunesmith.data.reading.files import Meter, Row
from tunesmith.data.reading.interleave import Until
from tunesmith.data.reading.sources import Dataset
from tunesmith.log import DataError

DRAWN_AT_ONCE = 1024
"""Random numbers drawn in one go, which is faster than one by one."""


@dataclass(frozen=True, slots=True)
class RawRows:
    """Which rows an epoch reads, and in which order: a function of the data, the seed and the epoch's number alone."""

    datasets: Sequence[Dataset]
    most: int | None
    """`max_samples`: most rows of each dataset; None: all."""
    until: Until | None
    """When interleaved datasets end; None: they are read one after another."""
    shares: Sequence[float] | None
    """The probability of each dataset; None: they take turns."""
    buffer_size: int
    """Rows among which each next one is drawn; 0: rows keep their order."""
    seed: int

    def epoch(self, number: int) -> Iterator[Row]:
        """The rows of epoch `number` (from 0), each with its dataset's number.  Raises DataError for a dataset without
        rows and for files that cannot be read."""
        readings = [_Reading(dataset, place, self.most) for place, dataset in enumerate(self.datasets)]
        rows = self._joined(readings)
        if not self.buffer_size:
            return rows
        return shuffled(rows, self.buffer_size, np.random.default_rng([self.seed, number, *b"stream"]))

    def _joined(self, readings: "Sequence[_Reading]") -> Iterator[Row]:
        if self.until is None:
            return (row for each in readings for row in each.rest())
        if self.shares is None:
            return _turns(readings, self.until)
        return _draws(readings, self.until, self.shares, np.random.default_rng([self.seed, *b"interleave"]))


class _Reading:
    """A dataset that is read row by row, and from its beginning again when it is used up."""

    def __init__(self, dataset: Dataset, number: int, most: int | None):
        self.dataset, self.number, self.most = dataset, number, mix.limit(dataset, most)
        self.used_up = False
        """Each of its rows has been taken once."""
        self._rows: Iterator[Row] = iter(())
        self._ahead: Row | None = None
        self._begin()

    def take(self) -> Row:
        """The next row."""
        if self._ahead is None:
            self._begin()
        row = self._ahead
        assert row is not None, "a dataset without rows is refused when it is opened"
        self._ahead = next(self._rows, None)
        self.used_up |= self._ahead is None
        return row._replace(dataset=self.number)

    def rest(self) -> Iterator[Row]:
        """The rows up to the last."""
        while not self.used_up:
            yield self.take()

    def _begin(self) -> None:
        self._rows = mix.take(self.dataset, self.most, "first", 0, Meter())
        self._ahead = next(self._rows, None)
        if self._ahead is None:
            raise DataError(f"{self.dataset.name}: holds no rows")


def _turns(readings: Sequence[_Reading], until: Until) -> Iterator[Row]:
    """A row of each dataset, round by round, as `interleave` orders samples."""
    enough = any if until == "interleave_under" else all
    while not enough(each.used_up for each in readings):
        for each in readings:
            if not (until == "interleave_once" and each.used_up):
                yield each.take()


def _draws(
    readings: Sequence[_Reading], until: Until, shares: Sequence[float], random: np.random.Generator
) -> Iterator[Row]:
    """The same, drawn.  A draw of a dataset that is used up is no draw, where each row is trained once."""
    enough = any if until == "interleave_under" else all
    while True:
        for number in random.choice(len(readings), size=DRAWN_AT_ONCE, p=shares).tolist():
            if until == "interleave_once" and readings[number].used_up:
                continue
            yield readings[number].take()
            if enough(each.used_up for each in readings):
                return


def shuffled(rows: Iterator[Row], buffer_size: int, random: np.random.Generator) -> Iterator[Row]:
    """The same rows in another order: each is drawn from a buffer of `buffer_size` rows, whose place the next one takes."""
    buffer = list(islice(rows, buffer_size))
    while fresh := list(islice(rows, DRAWN_AT_ONCE)):
        for row, place in zip(fresh, random.integers(len(buffer), size=len(fresh)).tolist(), strict=True):
            yield buffer[place]
            buffer[place] = row
    for place in random.permutation(len(buffer)).tolist():
        yield buffer[place]
