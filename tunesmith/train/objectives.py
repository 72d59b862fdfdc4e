"""What a batch costs.  Knows batches, and that a policy says something at places; knows no optimizer and no step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from tunesmith.data.sample import Batch
from tunesmith.losses.tokens import TokenLoss
from tunesmith.models.predict import Predictions


@dataclass(slots=True)
class Cost:
    """`total`: the loss summed over the batch's units (tokens, pairs), shape []; the loop divides it once per step.
    `hits`: how many trained tokens were the likeliest, int64 []; None when that was not asked."""

    total: Tensor
    hits: Tensor | None = None


class Objective(Protocol):
    """Returns a sum, and says beforehand how much a batch weighs: that makes gradient accumulation exact."""

    def weight(self, batch: Batch) -> float:
        """Units the batch's cost will be divided by, over a whole step (loss tokens for sft, by their weights)."""
        ...

    def __call__(self, policy: nn.Module, batch: Batch, *, count_hits: bool = False) -> Cost: ...


class NextToken:
    """The loss of each trained token given those before it: pre-training and supervised tuning.  A step's loss is the mean
    over its trained tokens, sum(w * loss) / sum(w) where they have weights.

    `each` None: cross-entropy.  `before`: called as a policy is, what the model said before it was tuned, for losses that
    compare with it.
    """

    def __init__(self, each: TokenLoss | None = None, before: Callable[..., Predictions] | None = None):
        self.each, self.before = each, before

    def weight(self, batch: Batch) -> float:
        return batch.loss_weight

    def __call__(self, policy: nn.Module, batch: Batch, *, count_hits: bool = False) -> Cost:
        asked: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "attention_mask": None if batch.packed else batch.attention_mask,  # packed: positions tell samples apart
            "places": batch.places,
            "bounds": batch.bounds,
            "longest": batch.longest,
            "shared": batch.shared,
        }
        before = None if self.before is None else self.before(**asked)
        said = policy(**asked)
        hits = said.hits(batch.targets) if count_hits else None
        if self.each is None:
            return Cost(total=said.cross_entropy(batch.targets, batch.target_weights), hits=hits)
        return Cost(total=said.cost(self.each, batch.targets, batch.target_weights, before), hits=hits)
