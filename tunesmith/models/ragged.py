"""Attention over rows of different lengths that lie behind one another in one long row, without padding between them.

Registered with Transformers under NAME, so that every model which leaves its attention to that registry can use it.
Where each row begins comes with the call, as `cu_seq_lens_q`; there is no mask, and nothing is as large as the square
of all tokens.  A start that several rows share may lie there once, as a row of its own that the others look back at.
Knows tensors; knows no model.
"""

from collections.abc import Sequence
from functools import lru_cache
from inspect import signature
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from tunesmith.losses.pieces import EVEN
from tunesmith.models import fp32_products

NAME = "tunesmith_ragged"
"""What `attn_implementation` is called in Transformers."""

SHORT = 512
"""Tokens of a row up to which plain products are faster on a CPU than torch's fused attention: measured on 2 cores with bf16
instructions, twice as fast there in bf16 and a little faster in fp32; the other way round from 1,024 on."""

HALF = (torch.bfloat16, torch.float16)


class Shared(Protocol):
    """What rows look at that begin with tokens of another row, which are not among their own."""

    before: Sequence[int]
    """[rows]: the number of that row, which looks at none itself; -1: the row begins by itself"""
    keys: Tensor
    """int64: the tokens that each row looks at, one row after another"""
    bounds: Tensor
    """int32 [rows + 1]: where the rows begin there, and the end"""
    longest: int
    """Tokens of the longest there"""


class Unfit(Exception):
    """The model's attention has a part that is not built here."""


def multiple(device: torch.device, dtype: torch.dtype) -> int:
    """Of what numbers of tokens are best multiples where products are computed in `dtype`; 1: any number will do.

    On a CPU oneDNN builds a program for each size of product: in 16 bits for a layer of 896 by 4,864 in up to 25 ms and
    2 MB, beside 4 ms that it then runs.  It is asked where the CPU has instructions for them, and for fp32 where `fp32_products`
    are in use; torch's own products, which serve otherwise, are built for no size."""
    if device.type != "cpu":
        return 1
    if dtype not in HALF:
        return EVEN if dtype == torch.float32 and fp32_products.REPLACED.in_use else 1
    known = torch.ops.mkldnn
    builds = known._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else known._is_mkldnn_fp16_supported()
    return EVEN if builds else 1


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
    max_length_q: int | None = None,
    lengths: Sequence[int] | None = None,
    shared: Shared | None = None,
    multiple_of: int = 1,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row.

    `query` [1, heads, tokens, width], `key` and `value` [1, key-value heads, tokens, width]; `cu_seq_lens_q` int32
    [rows + 1]: where rows begin, and the end; `max_length_q`: tokens of the longest; `lengths`: tokens of each row, where
    they are known without reading the bounds; `shared`: which begin with another row's tokens; `multiple_of`: of what the
    numbers of keys in plain products are made multiples.  Returns [1, tokens, heads, width of the values].  Raises Unfit for sinks, biases and masks.
    """
    if any(kwargs.get(name) is not None for name in ("s_aux", "position_bias")) or attention_mask is not None:
        raise Unfit("its attention has sinks, biases or a mask of its own")
    assert cu_seq_lens_q is not None and max_length_q is not None, "rows without padding come with their bounds"
    query, key, value = (as_computed(each) for each in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.is_cuda and query.dtype in HALF and query.shape[-1] == value.shape[-1] and not softcap and not dropout:
        return _varlen(query, key, value, cu_seq_lens_q, max_length_q, shared, scale, sliding_window), None
    each = cu_seq_lens_q.diff().tolist() if lengths is None else list(lengths)
    keys, values = (_looked_at(tensor.split(each, 2), shared) for tensor in (key, value))
    rows = zip(query.split(each, 2), keys, values, strict=True)
    done = [_row(*row, scale, sliding_window, softcap, dropout, multiple_of) for row in rows]
    return torch.cat(done, dim=2).transpose(1, 2).contiguous(), None


def _looked_at(rows: Sequence[Tensor], shared: Shared | None) -> Sequence[Tensor]:
    """Keys or values of each row, [1, heads, tokens, width] each, behind those of the row that it begins with."""
    if shared is None:
        return rows
    return [
        own if before < 0 else torch.cat([rows[before], own], dim=2)
        for own, before in zip(rows, shared.before, strict=True)
    ]


def as_computed(tensor: Tensor) -> Tensor:
    """The tensor in the format that autocast computes in on a GPU: where weights are in fp32, so are queries and keys that
    were turned by their positions, while values are not."""
    if not tensor.is_cuda or not torch.is_autocast_enabled("cuda"):
        return tensor
    return tensor.to(torch.get_autocast_dtype("cuda"))


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    shared: Shared | None,
    scale: float,
    window: int | None,
) -> Tensor:
    """All rows in one kernel, on a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    key_bounds, longest_keys = bounds, longest
    if (
        shared is not None
    ):  # a row's last token and its last key belong together, so the kernel's mask is right as it is
        key, value = key.index_select(2, shared.keys), value.index_select(2, shared.keys)
        key_bounds, longest_keys = shared.bounds, shared.longest
    # Before torch 2.13 keys shared by several heads need no word.
    told = "enable_gqa" in signature(varlen_attn).parameters
    grouped: dict[str, Any] = {"enable_gqa": query.shape[1] != key.shape[1]} if told else {}
    rows = [each.squeeze(0).transpose(0, 1) for each in (query, key, value)]
    done = varlen_attn(
        rows[0],
        rows[1],
        rows[2],
        bounds,
        key_bounds,
        longest,
        longest_keys,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        **grouped,
    )
    assert isinstance(done, Tensor), "nothing beside the output was asked for"
    return done.unsqueeze(0)


def _row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
    multiple_of: int,
) -> Tensor:
    """Attention within one row, [1, heads, tokens, width]; where there are more keys, the queries are of the last ones."""
    tokens = key.shape[2]
    if softcap or (query.device.type == "cpu" and tokens <= SHORT):
        return _products(query, key, value, scale, window, softcap, dropout, multiple_of)
    mask = None if window is None or tokens <= window else causal(tokens, window, query.dtype, query.device)
    ahead = tokens - query.shape[2]
    # Torch counts causal masks from the first key, and one of our own would be as large as the square of the row.
    query = F.pad(query, (0, 0, ahead, 0)) if ahead else query
    done = F.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return done[:, :, ahead:]


def _products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
    multiple_of: int,
) -> Tensor:
    """The same by plain products, with the heads that share a key in one matrix."""
    asked = query.shape[2]
    if more := -key.shape[2] % multiple_of:
        # Behind the row, where none of its tokens looks.
        query, key, value = (F.pad(each, (0, 0, 0, more)) for each in (query, key, value))
    _, heads, tokens, width = query.shape
    groups, keys = key.shape[1:3]
    shared = heads // groups
    mask = causal(keys, window, query.dtype, query.device)[keys - tokens :].expand(shared, tokens, keys)
    mask = mask.reshape(1, shared * tokens, keys).expand(groups, -1, -1)
    together = query.reshape(groups, shared * tokens, width)
    if softcap:
        scores = mask + softcap * torch.tanh(together @ key[0].transpose(1, 2) * (scale / softcap))
    else:
        scores = torch.baddbmm(mask, together, key[0].transpose(1, 2), alpha=scale)
    shares = torch.softmax(scores, dim=-1)
    if dropout:
        shares = F.dropout(shares, dropout)
    return (shares @ value[0]).view(1, heads, tokens, value.shape[-1])[:, :, :asked]


def causal(tokens: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where a token may look, else -inf; [tokens, tokens].  `window`: how many tokens back, itself included.

    A corner of one that is kept: one for each number of tokens would lie scattered among what comes and goes."""
    return _whole_mask(1 << (tokens - 1).bit_length(), window, dtype, device)[:tokens, :tokens]


def forget() -> None:
    """Let go of the masks that are kept."""
    _whole_mask.cache_clear()


@lru_cache(maxsize=16)
def _whole_mask(side: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    hidden = torch.ones(side, side, dtype=torch.bool, device=device).triu(1)
    if window is not None:
        hidden |= torch.ones_like(hidden).tril(-window)
    return torch.zeros(side, side, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
