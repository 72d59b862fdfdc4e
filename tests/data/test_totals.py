"""What is counted of a run's data is what its batches hold."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.batching.batches import windows
from tunesmith.data.batching.division import Division, Way
from tunesmith.data.sample import Sample
from tunesmith.data.telling.report import Longest, Tallies
from tunesmith.data.telling.totals import BINS, histogram, padding


class Lengths:
    """Samples of given lengths."""

    def __init__(self, lengths: list[int]):
        self.lengths = np.array(lengths, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        ids = np.zeros(self.lengths[index], np.int32)
        return Sample(ids, ids)

    def where(self, index: int) -> str:
        return str(index)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_each_sample_is_in_one_bin(lengths: list[int]) -> None:
    bins = histogram(np.array(lengths, dtype=np.int32))
    assert len(bins) <= BINS and bins[0].first == 1
    assert sum(bin.samples for bin in bins) == len(lengths) and bins[-1].samples
    for bin in bins:
        assert bin.samples == sum(bin.first <= length <= bin.last for length in lengths)


def test_no_sample_no_bin() -> None:
    assert histogram(np.zeros(0, np.int32)) == []


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("way", ["padded", "length_grouped", "token_budget"])
def test_padding_and_steps_are_those_of_the_batches(batch_size: int, processes: int, way: Way) -> None:
    samples = Lengths([3, 9, 14, 9, 1, 1, 25, 8, 30, 2, 7])
    division = Division(batch_size, 2, processes, seed=3, shuffle=True, way=way, row_tokens=30)
    numbers = set()
    tokens = computed = 0
    for rank in range(processes):
        for window in windows(samples, division, rank=rank, epochs=1):
            numbers.add(window.number)
            for batch in window.batches:
                if batch.rows != (-1,):
                    tokens += batch.tokens
                    computed += batch.attention_mask.numel()
    assert padding(samples, division) == pytest.approx(1 - tokens / computed)
    assert division.per_epoch(samples.lengths) == len(numbers)


def test_the_longest_of_the_cut_rows_are_remembered() -> None:
    rows = [(f"row {number}", tokens) for number, tokens in enumerate([70, 90, 80, 90, 75, 300])]
    at_once, in_parts = Longest(), Longest()
    at_once.add(rows, 3, 6)
    for row in rows:
        in_parts.add([row], 3, 1)
    assert at_once == in_parts == Longest(6, [("row 5", 300), ("row 1", 90), ("row 3", 90)])
    assert str(at_once) == "6 (row 5: 300 tokens, row 1: 90 tokens, row 3: 90 tokens, ...)"
    tallies = Tallies(cut=at_once)
    assert Tallies.of(json.loads(json.dumps(tallies.as_dict()))) == tallies
