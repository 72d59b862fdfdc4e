"""Samples -> Batch, padded on the right.  Knows tensors; knows no order."""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.data.sample import IGNORED, Batch, Sample


def pad(samples: Sequence[Sample], rows: Sequence[int], *, pad_id: int, multiple_of: int = 1) -> Batch:
    """A micro-batch of `samples`, whose numbers are `rows`: tensors [rows, tokens] as long as the longest sample,
    rounded up to `multiple_of` tokens."""
    longest = max(len(sample.input_ids) for sample in samples)
    width = -(-longest // multiple_of) * multiple_of
    shape = (len(samples), width)
    ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    for place, sample in enumerate(samples):
        tokens = len(sample.input_ids)
        ids[place, :tokens] = sample.input_ids
        labels[place, :tokens] = sample.labels
        mask[place, :tokens] = 1
        positions[place] = np.concatenate(
            [*map(np.arange, sample.parts or [tokens]), np.zeros(width - tokens, np.int64)]
        )
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.from_numpy(mask),
        torch.from_numpy(positions),
        tuple(rows),
        any(sample.parts for sample in samples),
        _weights(samples, width),
    )


def _weights(samples: Sequence[Sample], width: int) -> torch.Tensor | None:
    """float32 [rows, width]; None when no sample has any."""
    if all(sample.weights is None for sample in samples):
        return None
    weights = np.zeros((len(samples), width), dtype=np.float32)
    for row, sample in zip(weights, samples, strict=True):
        row[: len(sample.labels)] = sample.labels != IGNORED if sample.weights is None else sample.weights
    return torch.from_numpy(weights)


def in_one_row(batch: Batch) -> Batch:
    """The same packed batch with its rows behind one another, tensors [1, rows * tokens]: positions start again where a
    row did, and a row's first token is not trained, so nothing else changes."""
    assert batch.packed, "rows of a single sample would become one text"
    return Batch(
        batch.input_ids.reshape(1, -1),
        batch.labels.reshape(1, -1),
        batch.attention_mask.reshape(1, -1),
        batch.position_ids.reshape(1, -1),
        batch.rows,
        packed=True,
        weights=None if batch.weights is None else batch.weights.reshape(1, -1),
    )
