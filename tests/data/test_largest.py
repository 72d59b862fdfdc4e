"""The largest micro-batch is the largest of all that a run has."""

from itertools import islice

import numpy as np
import pytest

from tunesmith.data.batching.division import FILLER, Division
from tunesmith.data.batching.largest import largest

DIVISIONS = {
    "padded": {},
    "merged": {"padded": False, "merged": True},
    "length_grouped": {"way": "length_grouped"},
    "token_budget": {"way": "token_budget", "row_tokens": 60},
    "token_budget without padding": {"way": "token_budget", "row_tokens": 60, "padded": False},
}


@pytest.mark.parametrize("options", DIVISIONS.values(), ids=DIVISIONS)
@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_none_is_larger(options: dict, steps: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 203).astype(np.int32)
    division = Division(batch_size=4, accumulation=2, ranks=1, seed=1, shuffle=True, **options)

    def size(rows: list[int]) -> int:
        tokens = lengths[[row for row in rows if row != FILLER]]
        return int(tokens.max() * len(tokens) if division.padded else tokens.sum())

    windows = islice(division.epoch(lengths, 0), steps)
    sizes = [size(batch) for rows in windows for batch in division.micro_batches(rows, lengths, 0)]
    assert size(largest(lengths, division, steps)) == max(sizes)
