"""Losses of next-token training, as sums over the trained tokens.  Knows tensors; knows no config and no model class."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over tokens of -log p(target), each times its weight, in float32.  Shape [].

    `logits` [tokens, vocabulary], `targets` int64 [tokens], `weights` float32 [tokens], None for ones.  Where logits need
    not be whole, `linear.linear_cross_entropy` is the same and takes less memory.
    """
    if weights is None:
        return F.cross_entropy(logits.float(), targets, reduction="sum")
    return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()
