"""The loss on rows that are not trained.  Knows an objective and batches; keeps no logits."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tunesmith.config.train import TrainConfig
from tunesmith.data.collate import join, pad
from tunesmith.data.sample import Samples
from tunesmith.models.predict import Predictor
from tunesmith.train.events import speed
from tunesmith.train.inputs import Inputs
from tunesmith.train.objectives import Objective
from tunesmith.train.progress import Progress
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

    def results(self, prefix: str) -> dict[str, float]:
        """The values under the names that `eval_results.json` has for them."""
        timing = speed(prefix, seconds=self.seconds, samples=self.rows, steps=self.steps)
        return {f"{prefix}_loss": self.loss, f"{prefix}_perplexity": self.perplexity} | timing


def evaluate_all(policy: Predictor, inputs: Inputs, runtime: Runtime, cfg: TrainConfig) -> dict[str, float]:
    """The results of each evaluation set: `eval_loss`, or `eval_NAME_loss` when there are several."""
    results: dict[str, float] = {}
    objective, evals = inputs.stage.objective(), inputs.prepared.evals
    pad_id = inputs.tokenizer.pad_token_id
    for name, samples in evals.items():
        with Progress(f"evaluating {name}", disable=cfg.disable_tqdm) as progress:
            found = evaluate(
                policy, objective, samples, runtime, cfg.per_device_eval_batch_size, pad_id, on_batch=progress.rows
            )
        results |= found.results("eval" if len(evals) == 1 else f"eval_{name}")
    return results


@torch.no_grad()
def evaluate(
    policy: Predictor,
    objective: Objective,
    samples: Samples,
    runtime: Runtime,
    batch_size: int,
    pad_id: int,
    on_batch: Callable[[int, int], None],
) -> Evaluation:
    """Mean loss of `samples`; `on_batch(done, total)` is told how far it is.  Leaves random states and mode alone."""
    began = time.perf_counter()
    was_training = policy.training
    policy.eval()
    cost, weight, steps = 0.0, 0.0, 0
    mine = range(runtime.rank, len(samples), runtime.world_size)
    for start in range(0, len(mine), batch_size):
        rows = mine[start : start + batch_size]
        chosen = [samples[row] for row in rows]
        batch = join(chosen, rows) if policy.ragged else pad(chosen, rows, pad_id=pad_id)
        with runtime.autocast():
            cost += float(objective(policy, runtime.to_device(batch)).total)
        weight += objective.weight(batch)
        steps += 1
        on_batch(min(start + batch_size, len(mine)), len(mine))
    policy.train(was_training)
    cost, everything = runtime.sums(cost, weight)
    return Evaluation(
        loss=cost / everything if everything else 0.0,
        rows=len(samples),
        steps=steps,
        seconds=time.perf_counter() - began,
    )
