"""Which rows of each dataset are taken, and which of them are kept for evaluation.  Knows rows and prompts; knows no token."""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

import numpy as np

from tunesmith.data.reading.files import Meter, Row
from tunesmith.data.reading.sources import Dataset
from tunesmith.log import DataError, OptionError


def limit(dataset: Dataset, max_samples: int | None) -> int | None:
    """Most rows to take of a dataset; None: all."""
    limits = [limit for limit in (dataset.num_samples, max_samples) if limit is not None]
    return min(limits, default=None)


def take(
    dataset: Dataset, most: int | None, strategy: Literal["first", "random"], seed: int, meter: Meter
) -> Iterator[Row]:
    """The dataset's rows: all, the first `most`, or a seeded random choice of as many in the order of the data (which
    reads the data twice).  `meter` counts the bytes."""
    if most is None:
        yield from dataset.source.read(meter)
    elif strategy == "first":
        yield from islice(dataset.source.read(meter), most)
    else:
        rows = sum(1 for _ in dataset.source.read())
        chosen = np.zeros(rows, dtype=bool)
        chosen[_random(seed, dataset.name).permutation(rows)[:most]] = True
        yield from (row for row, wanted in zip(dataset.source.read(meter), chosen, strict=True) if wanted)


def split(keys: np.ndarray, val_size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to train on and of those to evaluate on, both in the order of the data.

    `keys` [rows] are equal for equal prompts, which stay together.  `val_size`: a fraction below 1, or a number of rows.
    Raises OptionError for a broken number of rows, DataError when either side would be empty."""
    rows = len(keys)
    if val_size >= 1 and val_size != int(val_size):
        raise OptionError(f"val_size: must be a fraction below 1 or a whole number of rows, got {val_size}")
    wanted = int(val_size) if val_size >= 1 else min(max(1, round(rows * val_size)), rows - 1)
    _, group_of, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    held_out = np.zeros(len(sizes), dtype=bool)
    room = wanted if wanted < rows else 0
    for group in _random(seed, "val_size").permutation(len(sizes)):
        if sizes[group] <= room:
            held_out[group] = True
            room -= sizes[group]
    evaluated = held_out[group_of]
    if not evaluated.any():
        raise DataError(
            f"val_size: {val_size:g} of {rows} rows with {len(sizes)} different prompts leaves one side empty"
        )
    return np.flatnonzero(~evaluated), np.flatnonzero(evaluated)


def _random(seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose, independent of every other's."""
    return np.random.default_rng([seed, *purpose.encode()])
