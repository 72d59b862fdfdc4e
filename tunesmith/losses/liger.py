"""Cross-entropy from hidden states by Liger's kernels.  Knows tensors and the package `liger_kernel`; knows no model."""

import torch
from torch import Tensor

from tunesmith.losses.linear import linear_cross_entropy


def liger_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    weights: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """What `linear_cross_entropy` computes, of the same arguments.  Tokens that count differently, and a scale beside a
    bias, are beyond Liger's kernel and computed there."""
    if weights is not None or (bias is not None and scale != 1.0) or not len(hidden):
        return linear_cross_entropy(hidden, weight, targets, bias=bias, weights=weights, scale=scale, softcap=softcap)
    from liger_kernel.ops import LigerFusedLinearCrossEntropyFunction

    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    hidden, head = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(kind, enabled=False):
        found = LigerFusedLinearCrossEntropyFunction.apply(
            hidden if scale == 1.0 else hidden * scale,
            head,
            targets,
            None if bias is None else bias.to(dtype),
            None,  # of classes
            -100,
            0.0,  # of the logarithm of the sum of exponentials, squared
            0.0,  # label smoothing
            "sum",
            softcap,
            False,
            torch.float32,  # what the head's gradient is summed in
        )
    loss: Tensor = found[0]
    return loss.float()
