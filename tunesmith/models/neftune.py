"""NEFTune: noise on the embeddings while a model is trained.  Knows tensors and one module; knows no options and no data."""

import torch
from torch import Tensor, nn


class Noise:
    """Adds to each embedding of a module in training what is drawn evenly from +-alpha / sqrt(tokens x width)
    (arXiv:2310.05914, algorithm 1); `tokens` are those of its own sample, however samples lie in a batch.  It is drawn from
    torch's generator, whose state a checkpoint holds."""

    def __init__(self, alpha: float, embeddings: nn.Module):
        self.alpha = alpha
        self.position_ids: Tensor | None = None
        """Positions of the batch that is computed next, int64 [rows, tokens], counted from each sample's start."""
        embeddings.register_forward_hook(self._add)

    def _add(self, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        if not module.training or self.position_ids is None:
            return made
        lengths = tokens_of_samples(self.position_ids)
        reach = self.alpha / (lengths * made.shape[-1]).float().sqrt()
        drawn = torch.empty(made.shape, dtype=torch.float32, device=made.device).uniform_(-1, 1)
        return made + (drawn * reach[..., None]).to(made.dtype)


def tokens_of_samples(position_ids: Tensor) -> Tensor:
    """How many tokens the sample of each token has, int64 as `position_ids` [rows, tokens]: one begins wherever positions
    start again at 0, so padding, whose positions are 0, counts for nobody."""
    sample = (position_ids == 0).flatten().cumsum(0) - 1
    return torch.bincount(sample)[sample].view_as(position_ids)
