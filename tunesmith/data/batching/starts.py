"""Which tokens of a micro-batch are computed: starts that samples share once, and none behind the last that predicts what is
trained.  Knows samples; knows no tensor.

Nothing trained depends on the rest: a token's hidden states are the same in every sample that begins alike, and nothing looks
ahead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tunesmith.data.batching.pack import Packed
from tunesmith.data.keeping.arrays import ArraySamples
from tunesmith.data.sample import IGNORED, Sample, Samples

FEWEST = 8
"""Tokens of a start from which on it is worth computing once."""

COMPARED = 20_000_000
"""Tokens that are compared to find what all samples begin with; about a second where there are a million."""


@dataclass(slots=True)
class Piece:
    """Tokens `first` to `last` of a sample, behind those of piece number `before`."""

    sample: Sample
    first: int
    last: int
    before: int = -1
    trained: np.ndarray = field(init=False)
    """Which of them predict a trained token, counted from `first`; nothing predicts a sample's first one."""

    def __post_init__(self) -> None:
        self.trained = np.flatnonzero(self.sample.labels[self.first + 1 : self.last + 1] != IGNORED)

    def targets(self) -> np.ndarray:
        """int64, as `trained`."""
        return self.sample.labels[self.trained + self.first + 1].astype(np.int64)

    def weights(self) -> np.ndarray:
        """float32, as `trained`."""
        weights = self.sample.weights
        return np.ones(len(self.trained), np.float32) if weights is None else weights[self.trained + self.first + 1]


def laid(samples: Sequence[Sample], share: int = 0) -> list[Piece]:
    """The samples, and those in packed ones, as pieces; those that begin alike behind one another, after the tokens that
    they share, `share` at the most."""
    samples = [part for sample in samples for part in _parts(sample)]
    if share < FEWEST:
        return [Piece(sample, 0, len(sample.input_ids)) for sample in samples]
    alike: dict[bytes, list[Sample]] = {}
    for sample in samples:
        alike.setdefault(sample.input_ids[:FEWEST].tobytes(), []).append(sample)
    pieces: list[Piece] = []
    for group in alike.values():
        tokens, before = min(share, _shared(group)) if len(group) > 1 else 0, -1
        if tokens >= FEWEST:
            before = len(pieces)
            pieces.append(Piece(group[0], 0, tokens))
        pieces += [Piece(sample, tokens if before >= 0 else 0, _end(sample), before) for sample in group]
    return pieces


def shared_by_all(samples: Samples) -> int:
    """How many tokens all samples begin with, as `laid` shares them, at least: COMPARED tokens are looked at in all.  0 where
    samples have to be read one by one."""
    if isinstance(samples, Packed):
        return shared_by_all(samples.samples) if samples.isolated else 0
    if not isinstance(samples, ArraySamples) or not len(samples):
        return 0
    starts, rows = samples.starts[samples.order], samples.rows
    most = min(int(samples.lengths.min()) - 1, COMPARED // len(samples))
    for tokens in range(most):
        here = rows.ids[starts + tokens]
        if (here != here[0]).any() or rows.trained[starts + tokens + 1].any():
            most = tokens
            break
    return most if most >= FEWEST else 0


def looked_at(before: Sequence[int], bounds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the tokens that attention of each piece looks at, int64, piece after piece, and where a piece begins there
    and the last ends, int32 [pieces + 1]."""
    own = [np.arange(start, stop) for start, stop in pairwise(bounds)]
    seen = [part if ahead < 0 else np.concatenate([own[ahead], part]) for part, ahead in zip(own, before, strict=True)]
    return np.concatenate(seen), np.cumsum([0, *map(len, seen)], dtype=np.int32)


def _parts(sample: Sample) -> Iterator[Sample]:
    """A sample, or the samples in a packed one."""
    if not sample.parts:
        yield sample
        return
    for start, stop in pairwise(np.cumsum([0, *sample.parts]).tolist()):
        weights = None if sample.weights is None else sample.weights[start:stop]
        yield Sample(sample.input_ids[start:stop], sample.labels[start:stop], weights=weights)


def _shared(samples: Sequence[Sample]) -> int:
    """How many tokens all begin with, so that in each one that is not trained follows: what the last of them predicts
    counts for nobody."""
    first, most = samples[0].input_ids, min(_first_trained(sample) for sample in samples) - 1
    for sample in samples[1:]:
        most = min(most, len(sample.input_ids))
        different = np.flatnonzero(sample.input_ids[:most] != first[:most])
        most = int(different[0]) if len(different) else most
    return most


def _first_trained(sample: Sample) -> int:
    trained = sample.labels[1:] != IGNORED
    return int(trained.argmax()) + 1 if trained.any() else len(sample.input_ids)


def _end(sample: Sample) -> int:
    """Where the last token that predicts a trained one ends."""
    trained = np.flatnonzero(sample.labels[1:] != IGNORED)
    return int(trained[-1]) + 1 if len(trained) else len(sample.input_ids)
