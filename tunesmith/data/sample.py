"""What the loop eats: one encoded row, many of them, and a batch.  Knows tokens; knows no template and no file."""

from __future__ import annotations  # so that processes which only encode never import torch

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

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


class Layout(NamedTuple):
    """How samples lie in a batch."""

    one_row: bool = False
    """Behind one another in a single row, without padding; else each in one of its own."""
    share: int = 0
    """Tokens that samples of one row begin with alike and may have in common, at the most."""
    multiple_of: int = 1
    """Of what the number of tokens in a row, the trailing ones that nobody looks at among them, is a multiple."""
    few_sizes: bool = False
    """In one row: filled up to one of few sizes; see `fixed.py`."""


EVERYTHING = 1 << 30
"""`share` without a limit."""


@dataclass(slots=True)
class Shared:
    """Which pieces of a batch's single row go on from another, and the tokens that attention of each looks at."""

    before: Sequence[int]
    """[pieces]: the number of the piece that this one goes on from, -1 where it begins a sample"""
    keys: Tensor
    """int64: places of those tokens, piece after piece: those of the piece before, then its own"""
    bounds: Tensor
    """int32 [pieces + 1]: where a piece begins in `keys`, and the end"""
    longest: int
    """Tokens that one piece looks at, at the most"""


@dataclass(slots=True)
class Batch:
    """One micro-batch: rows of samples padded to one length, or behind one another in a single row."""

    input_ids: Tensor
    """int64 [rows, tokens]"""
    attention_mask: Tensor
    """int64 [rows, tokens]; 0 on padding"""
    position_ids: Tensor
    """int64 [rows, tokens]; counted from each sample's start"""
    places: Tensor
    """int64 [places]: where a trained token is predicted, the one before it, counted over all rows' tokens"""
    targets: Tensor
    """int64 [places]: the tokens predicted there"""
    rows: Sequence[int]
    """The samples' numbers, for messages; one added only to fill up a rank is -1."""
    tokens: int
    """Tokens of the samples without padding, and without a row that only fills up a rank, which lies alone; also where fewer
    are computed, because samples share them"""
    packed: bool = False
    """Rows hold several samples, told apart by where positions start again; attention must not cross."""
    target_weights: Tensor | None = None
    """float32 [places]: how much the loss of each counts; None when all count 1"""
    bounds: Tensor | None = None
    """int32 [pieces + 1]: where pieces behind one another in a single row begin, and the end; None for padded rows.  A piece
    is a sample, the start that several share, or what follows it."""
    longest: int | None = None
    """Tokens of the longest piece."""
    shared: Shared | None = None
    """How pieces go on from others; None where each is a sample."""
    idle: int = 0
    """How many of the places, the last ones, are there for their number alone, and count nothing."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `change` made to each of its tensors."""
        shared = self.shared
        return replace(
            self,
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            position_ids=change(self.position_ids),
            places=change(self.places),
            targets=change(self.targets),
            target_weights=None if self.target_weights is None else change(self.target_weights),
            bounds=None if self.bounds is None else change(self.bounds),
            shared=shared and replace(shared, keys=change(shared.keys), bounds=change(shared.bounds)),
        )

    @property
    def padded_tokens(self) -> int:
        """Tokens of the samples and padding."""
        return max(self.tokens, self.input_ids.numel())

    @property
    def loss_tokens(self) -> int:
        """Tokens that are trained: labels that some position predicts, so never a sample's first."""
        return len(self.places) - self.idle

    @property
    def loss_weight(self) -> float:
        """What the batch's trained tokens count together: `loss_tokens` unless some have another weight than 1."""
        weights = self.target_weights
        return self.loss_tokens if weights is None else float(weights.double().sum())
