"""The key-value cache of rows that come and go while others are answered.  Knows tensors; knows no model and no sampling.

Each layer's keys and values lie in one tensor [slots, heads, columns, width], made once: nothing is copied from step to
step.  All rows write their next token into the same column, so that a row's tokens end there and begin where its own
prompt begins, as in a batch padded on the left; what Transformers' models know about those holds.  Rows in use are the
first ones: when one ends, the last takes its place.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

SPARE = 4
"""A fourth more columns than any row needs, so that moving them all back to the front, once the end is reached, is rare."""


class Slots(Cache):
    """Room for `slots` rows of up to `tokens` tokens each, prompt and answer."""

    def __init__(self, slots: int, tokens: int, device: torch.device):
        super().__init__(layer_class_to_replicate=partial(_Layer, self))
        self.slots, self.columns = slots, tokens + max(tokens // SPARE, 1)
        self.begin = self.end = 0
        """Columns in use."""
        self.lengths: list[int] = []
        """Tokens of each row in use."""
        self._mask = torch.zeros(slots, self.columns, dtype=torch.int64, device=device)

    @property
    def rows(self) -> int:
        """Rows in use."""
        return len(self.lengths)

    def add(self, prompts: DynamicCache, lengths: list[int]) -> None:
        """Take in the cache of prompts that were padded on the left to one width, as the next rows."""
        width, first = max(lengths), self.rows
        self.lengths += lengths
        if self.end < width:
            self._move(width)
        self._settle()
        place = slice(self.end - width, self.end)
        while len(self.layers) < len(prompts.layers):
            self.layers.append(_Layer(self))
        for layer, taken in zip(self.layers, prompts.layers, strict=True):
            layer.take(taken.keys, taken.values, first, place)
        self._mask[first : self.rows] = 0
        for row, length in enumerate(lengths, start=first):
            self._mask[row, self.end - length : self.end] = 1

    def step(self) -> tuple[Tensor, Tensor]:
        """Make room for one more token of each row.  Returns the attention mask, int64 [rows, columns in use with the new
        one], and the new tokens' positions, int64 [rows, 1]."""
        if self.end == self.columns:
            self._move(max(self.lengths))
        self._mask[: self.rows, self.end] = 1
        positions = torch.tensor(self.lengths, device=self._mask.device)[:, None]
        return self._mask[: self.rows, self.begin : self.end + 1], positions

    def stepped(self) -> None:
        """Note that every layer has the new tokens' keys and values."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def remove(self, row: int) -> None:
        """Let a row go; the last one takes its place."""
        last = self.rows - 1
        if row != last:
            self._mask[row] = self._mask[last]
            for layer in self.layers:
                layer.copy_row(last, row)
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        self._settle()

    def _settle(self) -> None:
        """Forget columns that no row uses any more."""
        self.begin = self.end - max(self.lengths, default=0)

    def _move(self, end: int) -> None:
        """Put the columns in use where they end at `end`."""
        kept = min(self.end - self.begin, end)
        old, new = slice(self.end - kept, self.end), slice(end - kept, end)
        for layer in self.layers:
            layer.move(old, new)
        mask = self._mask[:, old].clone()
        self._mask.zero_()
        self._mask[:, new] = mask
        self.begin, self.end = end - kept, end


class _Layer(CacheLayerMixin):
    """One layer's keys and values."""

    is_sliding = False

    def __init__(self, slots: Slots):
        super().__init__()
        self._of = slots

    def take(self, keys: Tensor, values: Tensor, first: int, place: slice) -> None:
        """Copy `keys` and `values` [rows, heads, tokens, width] into rows from `first` on, in the columns `place`."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self.keys[first : first + len(keys), :, place] = keys
        self.values[first : first + len(values), :, place] = values

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros, since what a mask hides is multiplied by zero, and not every value survives that.
        self.keys, self.values = (
            each.new_zeros(self._of.slots, each.shape[1], self._of.columns, each.shape[3])
            for each in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *unused: Any, **also: Any) -> tuple[Tensor, Tensor]:
        """Write the new token's, [rows, heads, 1, width]; returns all in use, [rows, heads, columns, width]."""
        rows, begin, end = self._of.rows, self._of.begin, self._of.end
        self.keys[:rows, :, end : end + 1] = key_states
        self.values[:rows, :, end : end + 1] = value_states
        return self.keys[:rows, :, begin : end + 1], self.values[:rows, :, begin : end + 1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self._of.end - self._of.begin

    def get_max_length(self) -> int:
        return -1

    def copy_row(self, source: int, target: int) -> None:
        place = slice(self._of.begin, self._of.end)
        for each in (self.keys, self.values):
            each[target, :, place] = each[source, :, place]

    def move(self, old: slice, new: slice) -> None:
        for each in (self.keys, self.values):
            each[:, :, new] = each[:, :, old].clone()
