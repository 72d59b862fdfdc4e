"""What a model was found to be worth on rows, with intervals, and what differs between two models on the same rows.
Knows numbers by row; knows no model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RESAMPLES = 2000
"""How often rows are drawn anew for an interval."""

Z95 = 1.959963984540054
"""Standard deviations within which 95 % of a normal distribution lie."""


@dataclass(slots=True)
class Measured:
    """One metric on the rows of a task or dataset.  `values`, `weights`: float64 [rows]; the metric is the mean of the
    values by their weights.  `rows`: what each row is, for people; `groups`: each row's subject, '' where there is none."""

    name: str
    metric: str
    values: np.ndarray
    weights: np.ndarray
    rows: list[dict[str, Any]]
    groups: list[str] = field(default_factory=list)
    less_is_better: bool = False

    @property
    def mean(self) -> float:
        """The metric."""
        return float(self.values @ self.weights / self.weights.sum())

    @property
    def is_share(self) -> bool:
        """Whether rows are right or wrong, and count the same."""
        return bool(np.isin(self.values, (0, 1)).all() and (self.weights == 1).all())

    @property
    def stderr(self) -> float:
        """The standard error of the mean: of rows that count the same, as the evaluation harness takes it."""
        rows = len(self.values)
        if rows < 2:
            return math.nan
        share = self.weights / self.weights.sum()
        return float(np.sqrt(rows / (rows - 1) * (share**2 @ (self.values - self.mean) ** 2)))

    def interval(self, seed: int) -> tuple[float, float]:
        """95 %: Wilson's of a share of rows, else by drawing rows anew."""
        if self.is_share:
            return wilson(int(self.values.sum()), len(self.values))
        return drawn(self.values * self.weights, self.weights, seed)

    def of(self, group: str) -> "Measured":
        """The rows of one subject."""
        chosen = [place for place, each in enumerate(self.groups) if each == group]
        rows = [self.rows[place] for place in chosen]
        less = self.less_is_better
        return Measured(
            self.name, self.metric, self.values[chosen], self.weights[chosen], rows, [group] * len(chosen), less
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """`value`: tuned less base; `low`, `high`: its 95 % interval; rows where the tuned model is better (`gained`) and worse
    (`lost`), by their place; `p`: how likely so uneven a count is when neither model is better."""

    value: float
    low: float
    high: float
    gained: list[int]
    lost: list[int]
    p: float


def compared(base: Measured, tuned: Measured, seed: int) -> Difference:
    """What differs on the same rows."""
    apart = (tuned.values - base.values) * (-1 if tuned.less_is_better else 1)
    low, high = drawn((tuned.values - base.values) * tuned.weights, tuned.weights, seed)
    gained, lost = np.flatnonzero(apart > 0), np.flatnonzero(apart < 0)
    by_size = np.argsort(-np.abs(apart), kind="stable")
    return Difference(
        tuned.mean - base.mean,
        low,
        high,
        [int(place) for place in by_size if apart[place] > 0],
        [int(place) for place in by_size if apart[place] < 0],
        sign_test(len(gained), len(lost)),
    )


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (J. Am. Stat. Assoc. 22, 1927)."""
    share, z2 = hits / rows, Z95**2
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z95 / (1 + z2 / rows) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def drawn(sums: np.ndarray, weights: np.ndarray, seed: int) -> tuple[float, float]:
    """The middle 95 % of sum(sums) / sum(weights) when as many rows are drawn with replacement, RESAMPLES times."""
    draw = np.random.default_rng(seed)
    found = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        rows = draw.integers(len(sums), size=len(sums))
        found[number] = sums[rows].sum() / weights[rows].sum()
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def sign_test(gained: int, lost: int) -> float:
    """McNemar's exact test, two-sided: the chance of a count at least so uneven when each way is equally likely."""
    rows, few = gained + lost, min(gained, lost)
    ways: Sequence[float] = [
        math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1) for k in range(few + 1)
    ]
    return min(1.0, 2 * sum(math.exp(way - rows * math.log(2)) for way in ways))
