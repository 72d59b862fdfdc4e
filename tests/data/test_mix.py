"""Which rows are taken and held out: seeded, counted exactly, and never the same prompt on both sides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.reading import mix
from tunesmith.data.reading.files import Meter
from tunesmith.data.reading.sources import find_datasets
from tunesmith.log import DataError, OptionError


def taken(path: Path, most: int | None, strategy: Any, seed: int = 0) -> list[int]:
    (dataset,) = find_datasets([str(path)], "")
    return [row.number for row in mix.take(dataset, most, strategy, seed, Meter())]


def test_rows_are_taken_from_the_start_or_by_a_seeded_choice(write: Callable[[str, Any], Path]) -> None:
    path = write("rows.json", [{"text": str(number)} for number in range(100)])
    assert taken(path, None, "first") == list(range(1, 101))
    assert taken(path, 7, "first") == list(range(1, 8))
    chosen = taken(path, 7, "random")
    assert chosen == taken(path, 7, "random") == sorted(set(chosen)) and len(chosen) == 7
    assert chosen != taken(path, 7, "random", seed=1)
    assert taken(path, 200, "random") == list(range(1, 101))


def test_the_smaller_limit_counts(write: Callable[[str, Any], Path]) -> None:
    (dataset,) = find_datasets([f"{write('rows.json', [{'text': 'a'}])}#5"], "")
    assert [mix.limit(dataset, most) for most in (None, 3, 9)] == [5, 3, 5]


@given(st.lists(st.integers(0, 8), min_size=2, max_size=40), st.floats(0.01, 45), st.integers(0, 3))
def test_a_split_holds_every_row_once_and_no_prompt_on_both_sides(keys: list[int], val_size: float, seed: int) -> None:
    if val_size >= 1:
        val_size = float(int(val_size))
    prompts = np.array(keys, dtype=np.uint64)
    try:
        train, held_out = mix.split(prompts, val_size, seed)
    except DataError:
        wanted = val_size if val_size >= 1 else max(1, round(val_size * len(keys)))
        assert (val_size >= len(keys)) or len(set(keys)) == 1 or min(map(keys.count, keys)) > wanted
        return
    assert sorted([*train, *held_out]) == list(range(len(keys)))
    assert not set(prompts[train]) & set(prompts[held_out])
    assert len(train) and len(held_out)
    assert np.array_equal(mix.split(prompts, val_size, seed)[1], held_out)


@pytest.mark.parametrize(("val_size", "count"), [(0.1, 10), (0.001, 1), (1.0, 1), (25.0, 25), (99.0, 99)])
def test_the_number_held_out_is_exact_when_prompts_differ(val_size: float, count: int) -> None:
    keys = np.arange(100, dtype=np.uint64)
    train, held_out = mix.split(keys, val_size, 0)
    assert (len(train), len(held_out)) == (100 - count, count)
    assert not np.array_equal(held_out, mix.split(keys, val_size, 1)[1]) or count == 99


def test_a_split_that_leaves_a_side_empty_is_refused() -> None:
    with pytest.raises(DataError, match=r"val_size: 100 of 100 rows with 100 different prompts leaves one side empty"):
        mix.split(np.arange(100, dtype=np.uint64), 100.0, 0)
    with pytest.raises(DataError, match=r"val_size: 0.1 of 50 rows with 1 different prompts leaves one side empty"):
        mix.split(np.zeros(50, dtype=np.uint64), 0.1, 0)
    with pytest.raises(OptionError, match=r"val_size: .* got 1.5"):
        mix.split(np.arange(9, dtype=np.uint64), 1.5, 0)
