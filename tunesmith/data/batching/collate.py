"""Samples -> Batch: behind one another in one row, or padded on the right.  Knows tensors; knows no order."""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.data.batching.starts import laid, looked_at
from tunesmith.data.sample import IGNORED, Batch, Sample, Shared


def join(samples: Sequence[Sample], rows: Sequence[int], *, share: int = 0, multiple_of: int = 1) -> Batch:
    """A micro-batch of `samples`, whose numbers are `rows`, behind one another in a single row: tensors [1, tokens], and
    the bounds of each sample, or of each part of a packed one.

    `share`: up to so many tokens that samples begin with alike, none of them trained, lie there once, and tokens behind
    the last that predicts anything are left out: nothing that is trained depends on where they are.  `multiple_of`: the
    last token comes again behind itself, where nothing looks, until their number is one that `rounded` gives.
    """
    pieces = laid(samples, share)
    sizes = [piece.last - piece.first for piece in pieces]
    tokens = sum(sizes)
    behind = rounded(tokens, multiple_of) - tokens
    sizes[-1] += behind
    bounds = np.cumsum([0, *sizes], dtype=np.int32)
    ids = np.concatenate([piece.sample.input_ids[piece.first : piece.last] for piece in pieces], dtype=np.int64)
    positions = np.concatenate([np.arange(piece.first, piece.last) for piece in pieces])
    ids, positions = (np.pad(each, (0, behind), mode="edge") for each in (ids, positions))
    weighed = any(sample.weights is not None for sample in samples)
    weights = np.concatenate([piece.weights() for piece in pieces]) if weighed else None
    return Batch(
        input_ids=torch.from_numpy(ids[None]),
        attention_mask=torch.ones((1, len(ids)), dtype=torch.int64),
        position_ids=torch.from_numpy(positions[None]),
        places=torch.from_numpy(
            np.concatenate([piece.trained + start for piece, start in zip(pieces, bounds[:-1].tolist(), strict=True)])
        ),
        targets=torch.from_numpy(np.concatenate([piece.targets() for piece in pieces])),
        rows=tuple(rows),
        tokens=_counted(samples, rows),
        packed=True,
        target_weights=None if weights is None else torch.from_numpy(weights),
        bounds=torch.from_numpy(bounds),
        longest=max(sizes),
        shared=_shared([piece.before for piece in pieces], bounds.tolist()),
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
    weights = np.ones(shape, dtype=np.float32)
    for place, sample in enumerate(samples):
        tokens = len(sample.input_ids)
        ids[place, :tokens] = sample.input_ids
        labels[place, :tokens] = sample.labels
        mask[place, :tokens] = 1
        positions[place] = np.concatenate(
            [*map(np.arange, sample.parts or [tokens]), np.zeros(width - tokens, np.int64)]
        )
        if sample.weights is not None:
            weights[place, :tokens] = sample.weights
    trained = np.zeros(shape, dtype=bool)  # where a trained token is predicted: the one before it, in its row
    trained[:, :-1] = labels[:, 1:] != IGNORED
    places = np.flatnonzero(trained)
    weighed = any(sample.weights is not None for sample in samples)
    return Batch(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        position_ids=torch.from_numpy(positions),
        places=torch.from_numpy(places),
        targets=torch.from_numpy(labels.reshape(-1)[places + 1]),
        rows=tuple(rows),
        tokens=_counted(samples, rows),
        packed=any(sample.parts for sample in samples),
        target_weights=torch.from_numpy(weights.reshape(-1)[places + 1]) if weighed else None,
    )


def rounded(tokens: int, multiple_of: int) -> int:
    """The next multiple of `multiple_of`, or of as large a power of two as adds 3 % at the most, so that few different ones
    occur; 1 changes nothing."""
    step = 1 if multiple_of == 1 else max(multiple_of, 1 << max(0, tokens.bit_length() - 6))
    return -(-tokens // step) * step


def _counted(samples: Sequence[Sample], rows: Sequence[int]) -> int:
    return sum(len(sample.input_ids) for sample in samples) if any(row >= 0 for row in rows) else 0


def _shared(before: Sequence[int], bounds: Sequence[int]) -> Shared | None:
    """What attention of each piece looks at; None where none goes on from another."""
    if max(before) < 0:
        return None
    keys, ends = looked_at(before, bounds)
    return Shared(tuple(before), torch.from_numpy(keys), torch.from_numpy(ends), int(np.diff(ends).max()))
