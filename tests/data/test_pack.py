"""Rows are filled well, every sample lies in exactly one, and packing changes neither loss nor gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tunesmith.data.batching.batches import windows
from tunesmith.data.batching.division import Division
from tunesmith.data.batching.pack import Packed, fill
from tunesmith.data.keeping.arrays import ArraySamples, Rows
from tunesmith.data.sample import IGNORED, Layout, Samples
from tunesmith.losses import lm


def array_samples(lengths: list[int], seed: int = 0, vocabulary: int = 600) -> ArraySamples:
    random = np.random.default_rng(seed)
    total, count = sum(lengths), len(lengths)
    ids = random.integers(3, vocabulary, total).astype(np.int32)
    trained = random.random(total) < 0.6
    starts = np.cumsum([0, *lengths[:-1]])
    counts = [int(trained[start + 1 : start + length].sum()) for start, length in zip(starts, lengths, strict=True)]
    numbers = np.arange(1, count + 1, dtype=np.int32)
    zeros = np.zeros(count, np.int32)
    sizes = np.array(lengths, np.int32)
    return ArraySamples(
        Rows(ids, trained, sizes, np.array(counts, np.int32), zeros, numbers,
             numbers.astype(np.uint64), zeros.astype(np.uint8), ["a.json"])
    )  # fmt: skip


@given(st.lists(st.integers(1, 64), max_size=60), st.integers(64, 100), st.integers(0, 3))
def test_every_sample_lies_in_exactly_one_row_that_has_room_for_it(
    lengths: list[int], row_tokens: int, seed: int
) -> None:
    sizes = np.array(lengths, dtype=np.int32)
    rows = fill(sizes, row_tokens, seed)
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    assert all(0 < sizes[row].sum() <= row_tokens for row in rows)
    emptiest = sorted(row_tokens - int(sizes[row].sum()) for row in rows)
    assert not rows or sum(int(sizes[row].sum()) <= row_tokens // 2 for row in rows) <= 1, f"room is wasted: {emptiest}"
    assert fill(sizes, row_tokens, seed) == rows


def test_rows_are_full_at_lengths_as_chat_data_has_them() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 0.7, 20_000).clip(8, 2048).astype(np.int32)
    rows = fill(lengths, 2048, seed=1)
    assert lengths.sum() / (len(rows) * 2048) > 0.97


def test_a_packed_row_holds_its_samples_one_after_another() -> None:
    samples = array_samples([5, 7, 3, 9])
    packed = Packed(samples, 12, seed=0)
    assert packed.lengths.tolist() == [12, 12] and packed.fill_rate == 1
    row = packed[0]
    assert sum(row.parts) == len(row.input_ids) == 12
    start = 0
    for number, length in zip(packed._members(0), row.parts, strict=True):
        part = samples[number]
        assert row.input_ids[start : start + length].tolist() == part.input_ids.tolist()
        assert row.labels[start : start + length].tolist() == [IGNORED, *part.labels[1:].tolist()]
        start += length
    assert packed.where(0) == f"a.json row {packed._members(0)[0] + 1} and 1 more"
    assert packed.trained_tokens() == samples.trained_tokens()


def test_a_packed_batch_restarts_positions_and_counts_the_same_tokens() -> None:
    samples = array_samples([5, 7, 3, 9, 4])
    packed = Packed(samples, 12, seed=0)
    (window,) = windows(packed, Division(9, 1, 1, seed=0, shuffle=False), epochs=1)
    (batch,) = window.batches
    assert batch.packed and batch.tokens == 28 and batch.loss_tokens == samples.trained_tokens()
    starts = [(batch.position_ids[row, : packed.lengths[row]] == 0).sum().item() for row in range(len(packed))]
    assert sum(starts) == 5
    (padded,) = windows(samples, Division(9, 1, 1, seed=0, shuffle=False), epochs=1)
    assert not padded.batches[0].packed


def test_contaminated_rows_are_one_text() -> None:
    packed = Packed(array_samples([5, 7]), 12, seed=0, isolated=False)
    assert packed[0].parts == () and len(packed) == 1
    (window,) = windows(packed, Division(1, 1, 1, seed=0, shuffle=False), epochs=1)
    (batch,) = window.batches
    assert not batch.packed and batch.position_ids[0].tolist() == list(range(12))
    assert packed.trained_tokens() == batch.loss_tokens


def loss_and_gradients(
    folder: Path, samples: Samples, attention: str, pad_to: int, one_row: bool = False
) -> tuple[float, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    total = 0.0
    for window in windows(
        samples, Division(2, 1, 1, seed=0, shuffle=True), epochs=1, layout=Layout(one_row, multiple_of=pad_to),
    ):  # fmt: skip
        (batch,) = window.batches
        mask = None if batch.packed else batch.attention_mask
        logits = model(
            input_ids=batch.input_ids, attention_mask=mask, position_ids=batch.position_ids, use_cache=False
        ).logits
        said = logits.flatten(0, 1)[batch.places]
        loss = lm.cross_entropy(said, batch.targets, batch.target_weights)
        loss.backward()
        total += loss.item()
    return total, torch.cat(
        [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("pad_to", "weighted"), [(1, False), (16, False), (1, True)])
def test_packing_changes_neither_loss_nor_gradient(
    tiny_model: Path, attention: str, pad_to: int, weighted: bool
) -> None:
    samples = array_samples([9, 17, 4, 30, 12, 1, 6, 2, 25, 11], seed=3)
    if weighted:
        samples.rows.weights = np.repeat([1, 0.5, 1, 2, 1, 1, 0.25, 1, 1, 0.75], samples.lengths).astype(np.float32)
    packed = Packed(samples, 40, seed=0)
    assert len(packed) < len(samples) and max(len(packed[row].parts) for row in range(len(packed))) > 2
    loss, gradients = loss_and_gradients(tiny_model, samples, attention, pad_to)
    packed_loss, packed_gradients = loss_and_gradients(tiny_model, packed, attention, pad_to)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(gradients, packed_gradients, rtol=1e-3, atol=1e-5)
    assert gradients.abs().max() > 0.1


def test_rows_behind_one_another_are_the_same_batch(tiny_model: Path) -> None:
    packed = Packed(array_samples([9, 17, 4, 30, 12, 1, 6, 2, 25, 11], seed=3), 40, seed=0)
    for window in windows(packed, Division(2, 1, 1, seed=0, shuffle=False), epochs=1, layout=Layout(one_row=True)):
        (batch,) = window.batches
        assert batch.input_ids.shape[0] == 1 and batch.position_ids[0, 0] == 0
        assert batch.loss_tokens == sum(int((packed[row].labels[1:] != IGNORED).sum()) for row in batch.rows)
    loss, gradients = loss_and_gradients(tiny_model, packed, "sdpa", 16)
    same_loss, same_gradients = loss_and_gradients(tiny_model, packed, "sdpa", 16, one_row=True)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(gradients, same_gradients, rtol=1e-3, atol=1e-5)
