"""Samples -> Batch: behind one another in one row, or padded on the right.  Knows tensors; knows no order."""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.data.sample import IGNORED, Batch, Sample


def join(samples: Sequence[Sample], rows: Sequence[int]) -> Batch:
    """A micro-batch of `samples`, whose numbers are `rows`, behind one another in a single row: tensors [1, tokens], and
    the bounds of each sample, or of each part of a packed one."""
    parts = [tokens for sample in samples for tokens in sample.parts or [len(sample.input_ids)]]
    bounds = np.cumsum([0, *parts], dtype=np.int32)
    ids = np.concatenate([sample.input_ids for sample in samples], dtype=np.int64)[None]
    labels = np.concatenate([sample.labels for sample in samples], dtype=np.int64)[None]
    labels[0, bounds[:-1]] = IGNORED  # nothing stands before a sample's first token
    positions = np.concatenate([np.arange(tokens) for tokens in parts])[None]
    weights = _weights(samples)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.ones(ids.shape, dtype=torch.int64),
        torch.from_numpy(positions),
        _places(labels),
        tuple(rows),
        packed=True,
        weights=None if weights is None else torch.from_numpy(np.concatenate(weights)[None]),
        bounds=torch.from_numpy(bounds),
        longest=max(parts),
    )


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
    weights = _weights(samples)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.from_numpy(mask),
        torch.from_numpy(positions),
        _places(labels),
        tuple(rows),
        any(sample.parts for sample in samples),
        None if weights is None else torch.from_numpy(np.stack([np.pad(w, (0, width - len(w))) for w in weights])),
    )


def _places(labels: np.ndarray) -> torch.Tensor:
    """Where a trained token of `labels` [rows, tokens] is predicted: the one before it, in its row."""
    trained = np.zeros(labels.shape, dtype=bool)
    trained[:, :-1] = labels[:, 1:] != IGNORED
    return torch.from_numpy(np.flatnonzero(trained))


def _weights(samples: Sequence[Sample]) -> list[np.ndarray] | None:
    """How much the loss of each sample's tokens counts, float32 [tokens] each; None when no sample has any weights."""
    if all(sample.weights is None for sample in samples):
        return None
    return [
        (sample.labels != IGNORED).astype(np.float32) if sample.weights is None else sample.weights
        for sample in samples
    ]
