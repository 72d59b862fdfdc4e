"""The same rows in every step however they are divided, and the same stream from any position."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.batching.batches import Window, windows
from tunesmith.data.batching.division import FILLER, Division, Order, divide, windows_per_epoch
from tunesmith.data.sample import IGNORED, Batch, Layout, Sample


class Rows:
    """Row `n` holds `n + 2` tokens, all of them `n`, of which the last is trained."""

    def __init__(self, count: int):
        self.lengths = np.arange(2, count + 2, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        ids = np.full(self.lengths[index], index, dtype=np.int32)
        labels = np.full_like(ids, IGNORED)
        labels[-1] = index
        return Sample(ids, labels)

    def where(self, index: int) -> str:
        return f"row {index}"


def stream(count: int, taken: int | None = None, **how: Any) -> list[Window]:
    rank, start = how.pop("rank", 0), how.pop("start_window", 0)
    division = division_of(**how)
    return list(islice(windows(Rows(count), division, rank=rank, epochs=3, start_window=start), taken))


def division_of(**how: Any) -> Division:
    return Division(**({"batch_size": 1, "accumulation": 1, "ranks": 1, "seed": 5, "shuffle": True} | how))


def rows_of(window: Window) -> list[int]:
    return [row for batch in window.batches for row in batch.rows]


sizes = st.integers(1, 30)


@given(sizes, st.sampled_from([(1, 6, 1), (2, 3, 1), (6, 1, 1), (3, 1, 2), (1, 3, 2), (1, 2, 3), (2, 1, 3), (1, 1, 6)]))
def test_every_division_trains_the_same_rows_in_each_step(count: int, division: tuple[int, int, int]) -> None:
    batch_size, accumulation, ranks = division
    reference = [set(rows_of(window)) for window in stream(count, accumulation=6)]
    per_rank = [
        stream(count, batch_size=batch_size, accumulation=accumulation, ranks=ranks, rank=rank) for rank in range(ranks)
    ]
    for step, same_step in enumerate(zip(*per_rank, strict=True)):
        rows = [row for window in same_step for row in rows_of(window) if row != FILLER]
        assert len(rows) == len(set(rows)) and set(rows) == reference[step]
        assert len({len(window.batches) for window in same_step}) == 1, "all ranks take part in every micro-batch"
        assert len({(window.epoch, window.number) for window in same_step}) == 1
        for micro in zip(*(window.batches for window in same_step), strict=True):
            assert any(row != FILLER for batch in micro for row in batch.rows), "no micro-batch is empty on all ranks"


@given(sizes, st.integers(1, 4), st.integers(1, 3), st.integers(0, 25))
def test_starting_at_a_window_gives_the_rest_of_the_stream(
    count: int, batch_size: int, accumulation: int, start: int
) -> None:
    whole = stream(count, batch_size=batch_size, accumulation=accumulation)
    rest = stream(count, batch_size=batch_size, accumulation=accumulation, start_window=start)
    assert [(w.epoch, w.number, rows_of(w)) for w in rest] == [(w.epoch, w.number, rows_of(w)) for w in whole[start:]]


@given(sizes, st.integers(1, 40))
def test_each_epoch_holds_every_row_once_in_an_order_of_its_own(count: int, accumulation: int) -> None:
    whole = stream(count, accumulation=accumulation)
    assert len(whole) == 3 * windows_per_epoch(count, accumulation)
    epochs = [[row for window in whole if window.epoch == epoch for row in rows_of(window)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 10 or len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert Order(50, 1).epoch(3).tolist() == Order(50, 1).epoch(3).tolist() != Order(50, 2).epoch(3).tolist()
    assert Order(50, 1, shuffle=False).epoch(3).tolist() == list(range(50))
    # The order of a seed is part of what a checkpoint means; it may not change between versions or machines.
    assert Order(10, 42).epoch(0).tolist() == ORDER_OF_SEED_42


ORDER_OF_SEED_42 = [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]


def test_windows_go_on_without_end_unless_epochs_are_given() -> None:
    endless = windows(Rows(3), division_of(batch_size=2))
    assert [window.epoch for window in islice(endless, 6)] == [0, 0, 1, 1, 2, 2]


def test_a_filler_row_trains_nothing() -> None:
    (window,) = islice(windows(Rows(3), division_of(batch_size=3, ranks=2), rank=1), 1)
    (batch,) = window.batches
    assert batch.rows == (FILLER,) and batch.loss_tokens == batch.tokens == 0


@pytest.mark.parametrize(("rank", "expected"), [(0, [[0, 1], [4, 5]]), (1, [[2, 3], [6]])])
def test_micro_batches_alternate_between_ranks(rank: int, expected: list[list[int]]) -> None:
    assert divide(np.arange(7), batch_size=2, ranks=2, rank=rank) == expected


def test_a_batch_holds_its_rows_padded_on_the_right() -> None:
    unshuffled = division_of(batch_size=3, shuffle=False)
    (window,) = windows(Rows(3), unshuffled, epochs=1, pad_id=9, layout=Layout(multiple_of=8))
    (batch,) = window.batches
    assert isinstance(batch, Batch) and batch.rows == (0, 1, 2)
    assert batch.input_ids.tolist() == [[0] * 2 + [9] * 6, [1] * 3 + [9] * 5, [2] * 4 + [9] * 4]
    assert batch.attention_mask.sum(dim=1).tolist() == [2, 3, 4]
    assert (batch.places.tolist(), batch.targets.tolist()) == ([0, 9, 18], [0, 1, 2])
    assert batch.position_ids[2].tolist()[:4] == [0, 1, 2, 3]
    assert (batch.tokens, batch.loss_tokens) == (9, 3)
    assert {batch.input_ids.dtype, batch.targets.dtype, batch.attention_mask.dtype, batch.position_ids.dtype} == {
        batch.input_ids.long().dtype
    }
