"""Which tokens of a micro-batch are computed: every trained one is predicted once, behind exactly what its sample has before it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.batching.collate import join, rounded
from tunesmith.data.batching.starts import FEWEST, laid, shared_by_all
from tunesmith.data.keeping.arrays import ArraySamples, Rows
from tunesmith.data.sample import EVERYTHING, IGNORED, Sample
from tunesmith.estimate.formula import Load

SYSTEM = list(range(100, 112))


def sample(start: list[int], rest: list[int], trained: int, weights: bool = False) -> Sample:
    """`start` and `rest`, of which the last `trained` tokens are."""
    ids = np.array(start + rest, dtype=np.int32)
    labels = np.where(np.arange(len(ids)) < len(ids) - trained, np.int32(IGNORED), ids)
    return Sample(ids, labels, weights=np.linspace(0, 1, len(ids), dtype=np.float32) if weights else None)


def predicted(samples: list[Sample], share: int) -> list[tuple[tuple[int, ...], int, float]]:
    """Each trained token of a batch: what attention of the token before it looks at, itself, and its weight."""
    batch = join(samples, range(len(samples)), share=share)
    assert batch.bounds is not None
    ids, bounds, found = batch.input_ids[0], batch.bounds.tolist(), []
    for order, place in enumerate(batch.places.tolist()):
        piece = next(number for number in range(len(bounds)) if bounds[number + 1] > place)
        seen = list(range(bounds[piece], place + 1))
        if batch.shared is not None:
            first, last = batch.shared.bounds[piece : piece + 2].tolist()
            keys = batch.shared.keys[first:last].tolist()
            seen = keys[: keys.index(place) + 1]
        assert batch.position_ids[0, seen].tolist() == list(range(len(seen)))
        weight = 1.0 if batch.target_weights is None else float(batch.target_weights[order])
        found.append((tuple(ids[seen].tolist()), int(batch.targets[order]), weight))
    return sorted(found)


rows = st.lists(
    st.tuples(
        st.sampled_from([SYSTEM, SYSTEM[:9] + [5] * 6, [7] * 9, []]),
        st.lists(st.integers(1, 9), min_size=1, max_size=9),
        st.integers(0, 12),
        st.booleans(),
    ).map(lambda told: sample(*told)),
    min_size=1,
    max_size=6,
)


@given(rows, st.sampled_from([FEWEST, 10, EVERYTHING]))
def test_each_trained_token_is_predicted_from_what_its_sample_has_before_it(samples: list[Sample], share: int) -> None:
    assert predicted(samples, share) == predicted(samples, 0)
    assert join(samples, range(len(samples)), share=share).tokens == sum(len(each.input_ids) for each in samples)


def test_a_start_lies_there_once_and_nothing_behind_the_last_trained_token_does() -> None:
    samples = [sample(SYSTEM, [1, 2, 3], 2), sample(SYSTEM, [4, 5, 6, 7], 1), sample([50] * 12, [1, 2, 3], 1)]
    batch = join(samples, range(3), share=EVERYTHING)
    assert batch.input_ids[0].tolist() == [*SYSTEM, 1, 2, 4, 5, 6, *[50] * 12, 1, 2]
    assert batch.position_ids[0].tolist() == [*range(12), 12, 13, 12, 13, 14, *range(14)]
    assert batch.shared is not None and tuple(batch.shared.before) == (-1, 0, 0, -1)
    assert (batch.tokens, batch.padded_tokens, batch.longest, batch.shared.longest) == (46, 46, 14, 15)


def test_parts_of_packed_rows_share_too() -> None:
    parts = [sample(SYSTEM, [1, 2], 1), sample(SYSTEM, [3, 4], 1)]
    packed = Sample(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("input_ids", "labels")), (14, 14)
    )
    batch = join([packed], [0], share=EVERYTHING)
    assert batch.input_ids[0].tolist() == [*SYSTEM, 1, 3] and batch.targets.tolist() == [2, 4]


@pytest.mark.parametrize(("trained", "shared"), [(5, 9), (3, 11), (1, 13)])
def test_no_trained_token_is_shared(trained: int, shared: int) -> None:
    """Nor is the place that predicts the first one, since what it predicts is each sample's own."""
    samples = [sample(SYSTEM, [1, 2, 3], trained), sample(SYSTEM, [1, 5, 6], 1)]
    assert laid(samples, EVERYTHING)[0].last == shared


def test_what_all_samples_begin_with_is_what_any_batch_shares() -> None:
    def samples(*each: Sample) -> ArraySamples:
        columns = {"file_of": np.int32, "numbers": np.int32, "keys": np.uint64, "marks": np.uint8, "counts": np.int32}
        return ArraySamples(
            Rows(
                np.concatenate([row.input_ids for row in each]),
                np.concatenate([row.labels != IGNORED for row in each]),
                np.array([len(row.input_ids) for row in each], dtype=np.int32),
                **{name: np.zeros(len(each), dtype) for name, dtype in columns.items()},
            )
        )

    def computed(rows: list[Sample]) -> tuple[int, ...]:
        return Load(tuple(len(row.input_ids) for row in rows), 1, shared_by_all(samples(*rows))).computed

    alike = [sample(SYSTEM, [1, 2, 3], 2), sample(SYSTEM, [1, 5, 6], 1), sample(SYSTEM, [1, 2, 3, 4], 1)]
    assert shared_by_all(samples(*alike)) == laid(alike, EVERYTHING)[0].last == 12
    assert computed(alike) == tuple(piece.last - piece.first for piece in laid(alike, EVERYTHING))
    assert shared_by_all(samples(*alike, sample(SYSTEM[:10], [1], 1))) == 9
    assert shared_by_all(samples(*alike, sample([], [1], 1))) == 0


def test_few_numbers_of_tokens_occur() -> None:
    numbers = {rounded(tokens, 32) for tokens in range(1, 4097)}
    assert len(numbers) == 64 + 32 and all(number % 32 == 0 for number in numbers)
    assert all(tokens <= rounded(tokens, 32) <= max(1.04 * tokens, tokens + 31) for tokens in range(1, 9000))
    assert all(rounded(tokens, 1) == tokens for tokens in (1, 77, 5000))


def test_what_makes_a_number_even_is_not_looked_at() -> None:
    sample = Sample(np.arange(5, 12, dtype=np.int32), np.arange(5, 12, dtype=np.int32))
    plain, even = join([sample, sample], [3, 4]), join([sample, sample], [3, 4], multiple_of=32)
    assert even.input_ids.tolist() == [plain.input_ids[0].tolist() + [11] * 18]
    assert even.position_ids.tolist() == [plain.position_ids[0].tolist() + [6] * 18]
    assert even.bounds is not None and even.bounds.tolist() == [0, 7, 32] and even.longest == 25
    for name in ("places", "targets"):
        assert getattr(even, name).tolist() == getattr(plain, name).tolist()
    assert (even.tokens, even.padded_tokens, even.loss_tokens) == (14, 32, 12)
