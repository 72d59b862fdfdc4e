"""Losses of next-token training, as sums over the trained tokens.  Knows tensors; knows no config and no model class."""

import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The label of a token that is not trained, as everywhere in this field."""


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over trained tokens of -log p(token | tokens before it), each times its weight, in float32.  Shape [].

    `logits` [rows, tokens, vocabulary]; `labels` [rows, tokens], each the token's own id or -100, not shifted: the
    logits at a position predict the label at the next one; `weights` [rows, tokens] of the labels, None for ones.  Only
    trained positions are turned into float32.
    """
    targets = labels[:, 1:]
    trained = targets != IGNORED
    predicted = logits[:, :-1][trained].float()
    if weights is None:
        return F.cross_entropy(predicted, targets[trained], reduction="sum")
    return (F.cross_entropy(predicted, targets[trained], reduction="none") * weights[:, 1:][trained]).sum()


def trained_tokens(labels: Tensor) -> int:
    """How many tokens of `labels` [rows, tokens] are trained: those that some position predicts, so never a row's
    first."""
    return int((labels[:, 1:] != IGNORED).sum())
