"""The loss on rows that are not trained.  Knows an objective and batches; keeps no logits."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tunesmith.data.batches import eval_batches
from tunesmith.data.sample import Samples
from tunesmith.train.objectives import Objective
from tunesmith.train.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`loss`: mean per trained token over all rows and processes; `seconds`: wall time."""

    loss: float
    rows: int
    steps: int
    seconds: float

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def results(self, prefix: str = "eval") -> dict[str, float]:
        """The reference's keys."""
        return {
            f"{prefix}_loss": self.loss,
            f"{prefix}_perplexity": self.perplexity,
            f"{prefix}_runtime": round(self.seconds, 4),
            f"{prefix}_samples_per_second": round(self.rows / self.seconds, 3),
            f"{prefix}_steps_per_second": round(self.steps / self.seconds, 3),
        }


@torch.no_grad()
def evaluate(
    policy: nn.Module,
    objective: Objective,
    samples: Samples,
    runtime: Runtime,
    batch_size: int,
    on_batch: Callable[[int, int], None],
) -> Evaluation:
    """Mean loss of `samples`; `on_batch(done, total)` is told how far it is.  Leaves random states and mode alone."""
    began = time.perf_counter()
    was_training = policy.training
    policy.eval()
    cost, weight, steps = 0.0, 0, 0
    batches, total = eval_batches(samples, batch_size=batch_size, ranks=runtime.world_size, rank=runtime.rank)
    for batch in batches:
        with runtime.autocast():
            cost += float(objective(policy, runtime.to_device(batch)).total)
        weight += objective.weight(batch)
        steps += 1
        on_batch(steps, total)
    policy.train(was_training)
    cost, everything = runtime.sums(cost, weight)
    return Evaluation(
        loss=cost / max(everything, 1), rows=len(samples), steps=steps, seconds=time.perf_counter() - began
    )
