"""Attention over rows that lie behind one another, by torch's FlexAttention with a mask of blocks.

Registered with Transformers under NAME, as `ragged` is, for models whose attention has parts that no other kernel knows
and for GPUs without another.  Knows tensors; knows no model.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from tunesmith.models.ragged import Unfit, as_computed

NAME = "tunesmith_flex"
"""What `attn_implementation` is called in Transformers."""


def register() -> None:
    """Make NAME known to Transformers."""
    AttentionInterface.register(NAME, attend)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row; arguments and result are those of `ragged.attend`.  Raises Unfit for sinks, biases,
    masks and dropout."""
    if any(kwargs.get(name) is not None for name in ("s_aux", "position_bias")) or attention_mask is not None:
        raise Unfit("its attention has sinks, biases or a mask of its own")
    if dropout:
        raise Unfit("its attention has dropout, which FlexAttention has not")
    assert cu_seq_lens_q is not None, "rows without padding come with their bounds"
    query, key, value = (as_computed(each) for each in (query, key, value))
    done: Tensor = _kernel(query.is_cuda)(
        query,
        key,
        value,
        score_mod=None if softcap is None else _limit(softcap),
        block_mask=_BLOCKS.of(cu_seq_lens_q, query.shape[2], sliding_window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        # Never the kernel for short rows, which takes only numbers of heads that are powers of two.
        kernel_options={"BACKEND": "TRITON"} if query.is_cuda else None,
    )
    return done.transpose(1, 2).contiguous(), None


@lru_cache(maxsize=2)
def _kernel(on_gpu: bool) -> Any:
    """FlexAttention, on a GPU as a kernel; uncompiled it makes all scores."""
    return torch.compile(flex_attention, dynamic=True) if on_gpu else flex_attention


@lru_cache(maxsize=4)
def _limit(softcap: float) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """One function for each limit, so that it is compiled once."""

    def limit(score: Tensor, row: Tensor, head: Tensor, at: Tensor, to: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return limit


class _Blocks:
    """The masks of the bounds that came last, which every layer asks for again."""

    def __init__(self) -> None:
        self._bounds: Tensor | None = None
        self._by_window: dict[int | None, BlockMask] = {}

    def of(self, bounds: Tensor, tokens: int, window: int | None) -> BlockMask:
        if self._bounds is not bounds:
            self._bounds, self._by_window = bounds, {}
        if window not in self._by_window:
            self._by_window[window] = blocks(bounds, tokens, window)
        return self._by_window[window]


_BLOCKS = _Blocks()


def blocks(bounds: Tensor, tokens: int, window: int | None = None) -> BlockMask:
    """Which of `tokens` tokens may look at which: back within their row, and `window` tokens at most.  `bounds` int32
    [rows + 1]."""
    rows = torch.searchsorted(bounds[1:], torch.arange(tokens, dtype=bounds.dtype, device=bounds.device), right=True)

    def seen(row: Tensor, head: Tensor, at: Tensor, to: Tensor) -> Tensor:
        allowed = (rows[at] == rows[to]) & (at >= to)
        return allowed if window is None else allowed & (at - to < window)

    # Uncompiled it makes all pairs of tokens first.
    create = torch.compile(create_block_mask, dynamic=True) if bounds.is_cuda else create_block_mask
    made: BlockMask = create(seen, None, None, tokens, tokens, device=bounds.device)
    return made
