"""The micro-batch that takes most room.  Knows rows' numbers and lengths; knows no token."""

from itertools import islice

import numpy as np

from tunesmith.data.batching.division import FILLER, Division

LOOKED_AT = 10_000
"""Windows among which the largest micro-batch is looked for."""


def largest(lengths: np.ndarray, division: Division, steps: int) -> list[int]:
    """The rows of the largest micro-batch of the first `steps` windows of the first epoch, by tokens and, where rows are
    padded, padding; of those of rank 0.  Windows whose longest row leaves no room for more than was found are not looked
    at."""
    windows = islice(division.epoch(lengths, 0), min(steps, LOOKED_AT))
    found, tokens = [int(lengths.argmax())], 0
    for rows in sorted(windows, key=lambda rows: -int(lengths[rows].max(initial=0))):
        if division.room(int(lengths[rows].max(initial=0))) <= tokens:
            break
        for batch in division.micro_batches(rows, lengths, rank=0):
            size = _tokens(lengths[[row for row in batch if row != FILLER]], padded=division.padded)
            if size > tokens:
                found, tokens = batch, size
    return found


def _tokens(lengths: np.ndarray, *, padded: bool) -> int:
    return int(lengths.max(initial=0) * len(lengths) if padded else lengths.sum())
