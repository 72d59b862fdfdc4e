"""What each trained token costs by its logits, and how that changes with them.  Knows tensors; knows no config and no model.

Each function, or what it makes, is a TokenLoss.  Gradients are written out, so that logits need not be kept: a weight that a
paper stops the gradient of is a number here.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

TokenLoss = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Logits float32 [tokens, vocabulary], targets int64 [tokens, 1], and the logits that the model had before it was tuned, or
None -> the loss of each token [tokens], and the gradient of their sum by the logits.  May write over what it is given."""

LIKELIEST = 20
"""Tokens whose entropy EAFT asks for."""

HIGHEST_ENTROPY = 3.0
"""What EAFT divides that by: ln 20, rounded as its authors do."""


def smoothed(factor: float) -> TokenLoss:
    """Label smoothing (arXiv:1512.00567, sec. 7), as Transformers' LabelSmoother means it: (1 - e) of -log p(target), and e
    of the mean of -log p over the vocabulary."""

    def each(logits: Tensor, targets: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        logs = logits.log_softmax(1)
        loss = -(1 - factor) * logs.gather(1, targets) - factor * logs.mean(1, keepdim=True)
        gradient = logs.exp_().sub_(factor / logs.shape[1])
        return loss.squeeze(1), _less(gradient, targets, 1 - factor)

    return each


def dft(logits: Tensor, targets: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Dynamic fine-tuning (arXiv:2508.05629): -log p(target), times p(target) as a number."""
    logs = logits.log_softmax(1)
    said = logs.gather(1, targets)
    sure = said.exp()
    return -(sure * said).squeeze(1), _less(logs.exp_(), targets, 1.0).mul_(sure)


def eaft(alpha: float) -> TokenLoss:
    """Entropy-adaptive fine-tuning (arXiv:2601.02151): -log p(target), times (H / 3) ** alpha as a number; H is the
    entropy of the 20 likeliest tokens among themselves."""

    def each(logits: Tensor, targets: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        likeliest = logits.topk(min(LIKELIEST, logits.shape[1]), dim=1).values.log_softmax(1)
        entropy = -(likeliest.exp() * likeliest).sum(1, keepdim=True)
        unsure = (entropy.clamp_(min=0) / HIGHEST_ENTROPY) ** alpha
        logs = logits.log_softmax(1)
        loss = -(unsure * logs.gather(1, targets)).squeeze(1)
        return loss, _less(logs.exp_(), targets, 1.0).mul_(unsure)

    return each


def asft(alpha: float) -> TokenLoss:
    """Anchored supervised fine-tuning (arXiv:2509.23753): DFT's loss, and `alpha` times the divergence
    KL(before || now) of what the model says from what it said before it was tuned."""

    def each(logits: Tensor, targets: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        assert before is not None, "asft compares with the model before it was tuned"
        then = before.float().log_softmax(1)
        now = logits.log_softmax(1)
        likely = then.exp()
        away = (likely * (then - now)).sum(1)
        drawn = (now.exp() - likely).mul_(alpha)
        loss, gradient = dft(logits, targets, None)
        return loss + alpha * away, gradient.add_(drawn)

    return each


def _less(probabilities: Tensor, targets: Tensor, share: float) -> Tensor:
    """The probabilities, `share` less at each target, in place."""
    return probabilities.scatter_add_(1, targets, torch.full_like(targets, -share, dtype=probabilities.dtype))


assert math.isclose(math.log(LIKELIEST), HIGHEST_ENTROPY, rel_tol=2e-3)
