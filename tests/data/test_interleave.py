"""Interleaved datasets end where they should, in proportions as asked, the same for the same seed."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.config.data import DataConfig
from tunesmith.data.reading.interleave import Until, interleave, probabilities
from tunesmith.data.reading.sources import Dataset, FileSource, Shape
from tunesmith.log import OptionError

UNTIL: list[Until] = ["interleave_under", "interleave_over", "interleave_once"]

sizes_of_datasets = st.lists(st.integers(1, 30), min_size=1, max_size=4)


def test_taking_turns_by_hand() -> None:
    assert interleave([3, 2], "interleave_under", None, 0).tolist() == [0, 3, 1, 4]
    assert interleave([3, 2], "interleave_over", None, 0).tolist() == [0, 3, 1, 4, 2, 3]
    assert interleave([1, 3], "interleave_once", None, 0).tolist() == [0, 1, 2, 3]


@given(sizes_of_datasets, st.sampled_from(UNTIL), st.booleans(), st.integers(0, 5))
def test_each_dataset_is_read_in_its_order_until_the_right_one_ends(
    sizes: list[int], until: Until, drawn: bool, seed: int
) -> None:
    shares = [1 / len(sizes)] * len(sizes) if drawn else None
    places = interleave(sizes, until, shares, seed)
    assert np.array_equal(places, interleave(sizes, until, shares, seed))
    starts = np.cumsum([0, *sizes])
    used = []
    for start, size in zip(starts, sizes, strict=False):
        mine = places[(places >= start) & (places < start + size)]
        assert mine.tolist() == [start + n % size for n in range(len(mine))]
        used.append(len(mine))
    reached = [n >= size for n, size in zip(used, sizes, strict=True)]
    if until == "interleave_once":
        assert used == sizes
    elif until == "interleave_under":
        assert any(reached) and all(n <= size for n, size in zip(used, sizes, strict=True))
    else:
        assert all(reached) and (not drawn or used[np.searchsorted(starts, places[-1], "right") - 1] in sizes)


def test_draws_follow_the_probabilities() -> None:
    places = interleave([10_000, 10_000], "interleave_under", [0.8, 0.2], seed=1)
    assert (places < 10_000).mean() == pytest.approx(0.8, abs=0.02)
    assert not np.array_equal(places[:50], interleave([10_000, 10_000], "interleave_under", [0.8, 0.2], seed=2)[:50])


def datasets(*weights: float | None) -> list[Dataset]:
    return [Dataset(name, FileSource([]), Shape(), weight=weight) for name, weight in zip("abc", weights, strict=False)]


def asked(mix: str = "interleave_under", probs: list[float] | None = None) -> DataConfig:
    return DataConfig(mix_strategy=mix, interleave_probs=probs)


def test_probabilities_are_written_in_either_place_and_sum_up_to_one() -> None:
    assert probabilities(asked(probs=[3, 1]), datasets(None, None)) == [0.75, 0.25]
    assert probabilities(asked(), datasets(0.3, 0.1)) == pytest.approx([0.75, 0.25])
    assert probabilities(asked(), datasets(None, None)) is None
    assert probabilities(asked("concat"), datasets(None)) is None


@pytest.mark.parametrize(
    ("cfg", "weights", "problem"),
    [
        (asked("concat", [1, 1]), (None, None), "interleave_probs needs mix_strategy: interleave_under"),
        (asked("concat"), (0.5, None), "dataset: the weight of a needs mix_strategy"),
        (asked(probs=[1, 1]), (0.5, 0.5), "interleave_probs: dataset gives the weight of a already"),
        (asked(), (0.5, None), "dataset: b has no weight and others have; write b@0.5"),
        (asked(probs=[1]), (None, None), "interleave_probs: 1 probabilities for 2 datasets"),
        (asked(probs=[1, 0]), (None, None), "interleave_probs: a dataset with probability 0"),
        (asked(), (1, 0), "dataset: a dataset with probability 0"),
    ],
)
def test_what_does_not_fit_is_refused(cfg: DataConfig, weights: tuple[float | None, ...], problem: str) -> None:
    with pytest.raises(OptionError, match=re.escape(problem)):
        probabilities(cfg, datasets(*weights))
