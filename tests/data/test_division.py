"""Every way of dividing rows trains each of them once an epoch, in the same steps however a step is divided."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.batching.division import FILLER, Division, Way

WAYS: list[Way] = ["padded", "length_grouped", "token_budget"]
ROW_TOKENS = 40
MERGED = 512

lengths_of_rows = st.lists(st.integers(1, ROW_TOKENS), min_size=1, max_size=80).map(lambda s: np.array(s, np.int32))


def divided(
    way: Way, batch_size: int = 2, accumulation: int = 3, ranks: int = 1, shuffle: bool = True, merged: bool = False
) -> Division:
    return Division(
        batch_size, accumulation, ranks, 7, shuffle, way, row_tokens=ROW_TOKENS, padded=not merged, merged=merged
    )


@given(lengths_of_rows, st.sampled_from(WAYS), st.booleans(), st.integers(1, 3), st.integers(1, 3))
def test_an_epoch_holds_every_row_once_in_as_many_windows_as_any_other(
    lengths: np.ndarray, way: Way, shuffle: bool, batch_size: int, accumulation: int
) -> None:
    division = divided(way, batch_size, accumulation, shuffle=shuffle)
    for number in range(3):
        epoch = list(division.epoch(lengths, number))
        assert len(epoch) == division.per_epoch(lengths) and all(len(window) for window in epoch)
        assert sorted(np.concatenate(epoch)) == list(range(len(lengths)))
        assert all(np.array_equal(*pair) for pair in zip(epoch, division.epoch(lengths, number), strict=True))


@given(
    lengths_of_rows,
    st.sampled_from(WAYS),
    st.sampled_from([(1, 6, 1), (2, 3, 1), (1, 3, 2), (1, 2, 3), (2, 1, 3)]),
    st.booleans(),
)
def test_every_division_of_a_step_trains_the_same_rows(
    lengths: np.ndarray, way: Way, division: tuple[int, int, int], merged: bool
) -> None:
    whole, parts = divided(way, 6, 1), divided(way, *division, merged=merged)
    ranks = division[2]
    for window, same in zip(whole.epoch(lengths, 1), parts.epoch(lengths, 1), strict=True):
        assert set(window) == set(same)
        shares = [parts.micro_batches(same, lengths, rank) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1, "all ranks take part in every micro-batch"
        rows = [row for share in shares for batch in share for row in batch if row != FILLER]
        assert sorted(rows) == sorted(window)
        for micro in zip(*shares, strict=True):
            assert any(batch != [FILLER] for batch in micro), "no micro-batch is empty on all ranks"


@given(lengths_of_rows, st.integers(1, 3), st.integers(1, 3))
def test_a_token_budget_is_never_passed_and_windows_are_alike(
    lengths: np.ndarray, batch_size: int, accumulation: int
) -> None:
    division = divided("token_budget", batch_size, accumulation)
    epoch = list(division.epoch(lengths, 0))
    share = lengths.sum() / len(epoch)
    for window in epoch:
        assert abs(lengths[window].sum() - share) <= ROW_TOKENS
        for rows in division.micro_batches(window, lengths, 0):
            assert len(rows) * lengths[rows].max() <= batch_size * ROW_TOKENS


@given(lengths_of_rows, st.sampled_from(WAYS), st.integers(1, 3), st.integers(1, 3))
def test_merged_micro_batches_take_the_room_of_padded_ones_and_are_no_more(
    lengths: np.ndarray, way: Way, batch_size: int, accumulation: int
) -> None:
    division, padded = divided(way, batch_size, accumulation, merged=MERGED), divided(way, batch_size, accumulation)
    for window in division.epoch(lengths, 0):
        longest = ROW_TOKENS if way == "token_budget" else int(lengths[window].max())
        batches = division.micro_batches(window, lengths, 0)
        room = division.room(longest)
        assert all(lengths[rows].sum() <= room for rows in batches)
        assert room <= max(batch_size * longest, min(MERGED, batch_size * ROW_TOKENS))
        assert len(batches) <= len(padded.micro_batches(window, lengths, 0))


def wasted(division: Division, lengths: np.ndarray) -> float:
    batches = [rows for window in division.epoch(lengths, 0) for rows in division.micro_batches(window, lengths, 0)]
    return 1 - lengths.sum() / sum(len(rows) * lengths[rows].max() for rows in batches)


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_of_like_length_need_little_padding(shuffle: bool) -> None:
    lengths = np.random.default_rng(0).integers(1, ROW_TOKENS, 3000).astype(np.int32)
    padded, grouped, budget = (wasted(divided(way, 4, 8, shuffle=shuffle), lengths) for way in WAYS)
    assert grouped < padded / 3 and budget < padded / 3


def test_windows_of_grouped_rows_come_in_random_order_but_the_short_one_last() -> None:
    lengths = np.arange(1, 126, dtype=np.int32)
    epoch = list(divided("length_grouped").epoch(lengths, 0))
    longest = [int(lengths[window].max()) for window in epoch[:-1]]
    assert len(epoch[-1]) == 5 and longest not in (sorted(longest), sorted(longest, reverse=True))


def test_unshuffled_windows_keep_the_order_of_the_data() -> None:
    lengths = np.random.default_rng(1).integers(1, ROW_TOKENS, 50).astype(np.int32)
    for way in WAYS:
        epoch = list(divided(way, shuffle=False).epoch(lengths, 2))
        assert [sorted(window.tolist()) for window in epoch] == [
            list(range(min(window), max(window) + 1)) for window in epoch
        ]
        assert [min(window) for window in epoch] == sorted(min(window) for window in epoch)


def test_short_rows_are_computed_together_up_to_what_long_ones_may_take() -> None:
    lengths = np.full(12, 3, dtype=np.int32)
    division = Division(2, 6, 1, 7, shuffle=False, row_tokens=9, padded=False, merged=MERGED)
    (window,) = division.epoch(lengths, 0)
    assert [len(rows) for rows in division.micro_batches(window, lengths, 0)] == [6, 6]
    wide = Division(2, 6, 1, 7, shuffle=False, row_tokens=1024, padded=False, merged=MERGED)
    assert wide.room(3) == MERGED and wide.room(1000) == 2000
