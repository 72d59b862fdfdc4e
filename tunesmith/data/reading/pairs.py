"""Samples that are compared or judged: what the preference stages read.  Knows marks; knows no loss."""

from dataclasses import dataclass

import numpy as np

from tunesmith.data.keeping.arrays import GOOD, ArraySamples
from tunesmith.data.sample import Sample


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples with one prompt; only their answers are trained."""

    chosen: Sample
    rejected: Sample


@dataclass(frozen=True, slots=True)
class Judged:
    """A sample, and whether its answer is desirable."""

    sample: Sample
    desirable: bool


class PairSamples:
    """Preference pairs by number."""

    def __init__(self, samples: ArraySamples):
        assert len(samples) % 2 == 0, "a pair is two samples"
        self.samples = samples
        self.lengths = samples.lengths[0::2] + samples.lengths[1::2]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.samples[2 * index], self.samples[2 * index + 1])

    def where(self, index: int) -> str:
        """File and row the pair came from."""
        return self.samples.where(2 * index)


class JudgedSamples:
    """Samples and their labels by number."""

    def __init__(self, samples: ArraySamples):
        self.samples, self.lengths = samples, samples.lengths
        self.desirable: np.ndarray = samples.marks == GOOD
        """bool [rows]"""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Judged:
        return Judged(self.samples[index], bool(self.desirable[index]))

    def where(self, index: int) -> str:
        """File and row the sample came from."""
        return self.samples.where(index)
