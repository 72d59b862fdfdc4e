"""The order in which a stream reads rows: every row once in an epoch, as far as the buffer reaches, and as samples that were
prepared before are interleaved."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.reading.files import Meter, Row
from tunesmith.data.reading.interleave import Until, interleave
from tunesmith.data.reading.raw_rows import DRAWN_AT_ONCE, RawRows, shuffled
from tunesmith.data.reading.sources import Dataset, FileSource, Shape
from tunesmith.log import DataError

UNTIL: list[Until] = ["interleave_under", "interleave_over", "interleave_once"]
sizes_of_datasets = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@dataclass
class Counting:
    """A source of `rows` rows that counts how many of them were read."""

    rows: int
    size_bytes: int = 0
    read_rows: int = 0

    def read(self, meter: Meter | None = None) -> Iterator[Row]:
        for number in range(1, self.rows + 1):
            self.read_rows += 1
            yield Row({}, "rows", number)

    def digest(self) -> str | None:
        return None


def raw(
    *sizes: int,
    until: Until | None = None,
    shares: list[float] | None = None,
    buffer_size: int = 0,
    most: int | None = None,
    seed: int = 3,
) -> RawRows:
    datasets = [Dataset(str(place), Counting(size), Shape()) for place, size in enumerate(sizes)]
    return RawRows(datasets, most, until, shares, buffer_size, seed)


def places(rows: RawRows, epoch: int = 0) -> list[tuple[int, int]]:
    return [(row.dataset, row.number) for row in rows.epoch(epoch)]


@given(sizes_of_datasets, st.integers(0, 40), st.integers(0, 3))
def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(sizes: list[int], buffer_size: int, epoch: int) -> None:
    rows = raw(*sizes, buffer_size=buffer_size)
    whole = [(dataset, number) for dataset, size in enumerate(sizes) for number in range(1, size + 1)]
    found = places(rows, epoch)
    assert Counter(found) == Counter(whole)
    assert found == places(rows, epoch)
    if not buffer_size:
        assert found == whole


def test_another_epoch_or_seed_is_another_order() -> None:
    orders = [places(raw(100, buffer_size=30, seed=seed), epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_row_comes_no_earlier_than_the_buffer_lets_it() -> None:
    order = [number for _, number in places(raw(5_000, buffer_size=50))]
    assert all(number <= place + 51 for place, number in enumerate(order))
    assert np.abs(np.diff(order)).mean() > 10


@given(sizes_of_datasets, st.sampled_from(UNTIL), st.booleans(), st.integers(0, 5))
def test_datasets_are_interleaved_as_prepared_samples_are(
    sizes: list[int], until: Until, drawn: bool, seed: int
) -> None:
    shares = [1 / len(sizes)] * len(sizes) if drawn else None
    starts = np.cumsum([0, *sizes])
    expected = [
        (int(dataset), int(place - starts[dataset]) + 1)
        for place in interleave(sizes, until, shares, seed)
        for dataset in [np.searchsorted(starts, place, side="right") - 1]
    ]
    assert places(raw(*sizes, until=until, shares=shares, seed=seed)) == expected


def test_no_more_rows_are_read_than_the_buffer_needs() -> None:
    rows = raw(100_000, buffer_size=500)
    list(islice(rows.epoch(0), 10))
    assert rows.datasets[0].source.read_rows <= 500 + DRAWN_AT_ONCE + 1
    unshuffled = raw(100_000)
    list(islice(unshuffled.epoch(0), 10))
    assert unshuffled.datasets[0].source.read_rows <= 11


def test_limits_are_those_of_each_dataset() -> None:
    rows = raw(10, 3, most=5)
    assert Counter(dataset for dataset, _ in places(rows)) == {0: 5, 1: 3}


@given(st.integers(0, 60), st.integers(1, 40))
def test_shuffling_loses_and_repeats_nothing(count: int, buffer_size: int) -> None:
    rows = [Row({}, "f", number) for number in range(count)]
    found = list(shuffled(iter(rows), buffer_size, np.random.default_rng(0)))
    assert sorted(row.number for row in found) == list(range(count))


def test_a_dataset_without_rows_is_named(tmp_path: object) -> None:
    with pytest.raises(DataError, match="1: holds no rows"):
        places(raw(3, 0, until="interleave_over"))
    with pytest.raises(DataError, match=r"nowhere\.json: cannot be read"):
        next(RawRows([Dataset("x", FileSource(["nowhere.json"]), Shape())], None, None, None, 0, 0).epoch(0))
