"""The next token of each row, from its logits and numbers of its own.  Knows tensors; knows no model and no text.

What a row draws depends on the run's seed and the row's own number alone, not on the rows beside it.
"""

import numpy as np
import torch
from torch import Tensor

from tunesmith.generate.sampling import Sampling

LIKELIEST = 1024
"""Tokens that are sorted first when `top_p` asks for the likeliest; mostly they are enough, and the whole vocabulary is
costly to sort."""


def chances(sampling: Sampling, row: int, count: int) -> np.ndarray:
    """The numbers that decide a row's tokens, float64 [count], each from 0 to below 1."""
    return np.random.default_rng([sampling.seed, row]).random(count)


def next_tokens(logits: Tensor, sampling: Sampling, chance: Tensor | None, seen: Tensor | None) -> Tensor:
    """int64 [rows], of `logits` [rows, vocabulary], `chance` float32 [rows] from 0 to 1 (needed
    unless the sampling is greedy), and `seen` bool [rows, vocabulary]:
    which tokens were there before, or None without a repetition penalty."""
    logits = logits.float()
    if seen is not None:
        punished = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        logits = torch.where(seen, punished, logits)
    if sampling.greedy:
        return logits.argmax(-1)
    assert chance is not None, "drawing needs a number for each row"
    logits = logits / sampling.temperature
    size = logits.shape[-1]
    count = min(sampling.top_k or size, size)
    whole = torch.logsumexp(logits, -1, keepdim=True) if not sampling.top_k else None
    if whole is not None and sampling.top_p < 1:
        count = min(count, LIKELIEST)
    best, tokens = logits.topk(count)
    shares = best.softmax(-1) if whole is None else (best - whole).exp()
    if count < size and whole is not None and bool((shares.sum(-1) < sampling.top_p).any()):
        best, tokens = logits.topk(size)
        shares = (best - whole).exp()
    before = shares.cumsum(-1) - shares
    shares = shares.masked_fill(before >= sampling.top_p, 0.0)
    shares[:, 0] = shares[:, 0].clamp_min(torch.finfo(shares.dtype).tiny)
    upto = shares.cumsum(-1)
    place = torch.searchsorted(upto, (chance * upto[:, -1])[:, None], right=True)
    last = (shares > 0).sum(-1, keepdim=True) - 1  # rounding may reach for one beyond
    return tokens.gather(-1, torch.minimum(place, last)).squeeze(-1)
