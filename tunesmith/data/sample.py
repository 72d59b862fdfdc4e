"""What the loop eats: one encoded row, many of them, and a batch.  Knows tokens; knows no template and no file."""

from __future__ import annotations  # so that processes which only encode never import torch

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of a token that is not trained, as everywhere in this field."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded row.  `input_ids`, `labels`: int32 [tokens]; a label is the token's own id or -100, not shifted."""

    input_ids: np.ndarray
    labels: np.ndarray
    parts: tuple[int, ...] = ()
    """Tokens of each of the samples that lie in this row and must not see each other; () for a single one."""
    weights: np.ndarray | None = None
    """float32 [tokens]: how much each token's loss counts, 0 where it is not trained; None when all trained ones count 1"""


class Samples(Protocol):
    """Encoded rows by number."""

    lengths: np.ndarray
    """Tokens of each row, int32 [rows]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def where(self, index: int) -> str:
        """File and row the sample came from, for messages."""
        ...


@dataclass(slots=True)
class Batch:
    """One micro-batch: rows of samples padded to one length, or behind one another in a single row."""

    input_ids: Tensor
    """int64 [rows, tokens]"""
    labels: Tensor
    """int64 [rows, tokens]; -100 where nothing is trained"""
    attention_mask: Tensor
    """int64 [rows, tokens]; 0 on padding"""
    position_ids: Tensor
    """int64 [rows, tokens]; counted from each sample's start"""
    places: Tensor
    """int64 [places]: where a trained token is predicted, the one before it, counted over all rows' tokens"""
    rows: Sequence[int]
    """The samples' numbers, for messages; one added only to fill up a rank is -1."""
    packed: bool = False
    """Rows hold several samples, told apart by where positions start again; attention must not cross."""
    weights: Tensor | None = None
    """float32 [rows, tokens]: how much each token's loss counts, 0 where it is not trained; None when all count 1"""
    bounds: Tensor | None = None
    """int32 [samples + 1]: where samples behind one another in a single row begin, and the end; None for padded rows"""
    longest: int | None = None
    """Tokens of the longest sample between bounds."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `change` made to each of its tensors."""
        return replace(
            self,
            input_ids=change(self.input_ids),
            labels=change(self.labels),
            attention_mask=change(self.attention_mask),
            position_ids=change(self.position_ids),
            places=change(self.places),
            weights=None if self.weights is None else change(self.weights),
            bounds=None if self.bounds is None else change(self.bounds),
        )

    @property
    def tokens(self) -> int:
        """Tokens without padding, and without a row that only fills up a rank, which lies alone."""
        return int(self.attention_mask.sum()) if any(row >= 0 for row in self.rows) else 0

    @property
    def loss_tokens(self) -> int:
        """Tokens that are trained: labels that some position predicts, so never a sample's first."""
        return len(self.places)

    @property
    def loss_weight(self) -> float:
        """What the batch's trained tokens count together: `loss_tokens` unless some have another weight than 1."""
        weights = self.target_weights
        return self.loss_tokens if weights is None else float(weights.double().sum())

    @property
    def targets(self) -> Tensor:
        """The tokens predicted at `places`, int64 [places]."""
        return self.labels.reshape(-1)[self.places + 1]

    @property
    def target_weights(self) -> Tensor | None:
        """How much each of them counts, float32 [places]; None when all count 1."""
        return None if self.weights is None else self.weights.reshape(-1)[self.places + 1]
