"""How far preparing has come and how many rows there will be.  Knows bytes and rows; knows no clock and no screen."""

from collections.abc import Callable, Iterator, Sequence

from tunesmith.data.reading import mix
from tunesmith.data.reading.files import Meter, Row
from tunesmith.data.reading.sources import Dataset

OnProgress = Callable[[int, int], None]
"""Told the rows that are done, and how many there will be as far as is known."""


class Outlook:
    """Guesses the number of rows from the bytes that the rows so far took on the disk."""

    def __init__(self, datasets: Sequence[Dataset], max_samples: int | None, on_progress: OnProgress):
        sizes = [dataset.source.size_bytes for dataset in datasets]
        limits = [mix.limit(dataset, max_samples) for dataset in datasets]
        self.total_bytes = sum(sizes) if all(sizes) else 0
        self.most = sum(limit for limit in limits if limit is not None) if None not in limits else None
        self.on_progress = on_progress
        self.meter = Meter()
        self.seen = self.done = 0

    def watch(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The same rows, counted as they are read."""
        for row in rows:
            self.seen += 1
            yield row

    def tell(self, rows: int) -> None:
        """So many more rows are done."""
        self.done += rows
        guess = self.seen * self.total_bytes // max(self.meter.read_bytes, 1)
        if self.most is not None:
            guess = min(guess, self.most)
        self.on_progress(self.done, max(guess, self.done))
