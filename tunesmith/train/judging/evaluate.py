"""The loss on rows that are not trained.  Knows an objective and how rows fall into batches; keeps no logits."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from tunesmith import shortage
from tunesmith.config.schema import Config
from tunesmith.data.batching.batches import batch_of
from tunesmith.data.batching.division import FILLER, Division, divide
from tunesmith.data.sample import Batch, Layout, Samples
from tunesmith.estimate.live import Live
from tunesmith.estimate.memory import gib
from tunesmith.log import OutOfMemory
from tunesmith.models.predict import Predictor
from tunesmith.train.foretelling import trial
from tunesmith.train.inputs import Inputs
from tunesmith.train.judging.best import prefix
from tunesmith.train.objectives import Objective
from tunesmith.train.policy import layout_of
from tunesmith.train.runtime import Runtime
from tunesmith.train.stop import Interrupted, as_part, of_sum
from tunesmith.train.telling.events import speed
from tunesmith.train.telling.progress import Progress

ENOUGH = {"cpu": 1 << 13, "cuda": 1 << 15}
"""Tokens computed at once beyond which a device gains nothing more."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`loss`: mean per trained token over all rows and processes; `seconds`: wall time; `accuracy`: share of trained tokens
    that were the likeliest, None when that was not asked."""

    loss: float
    rows: int
    steps: int
    seconds: float
    accuracy: float | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def results(self, prefix: str, metrics: Sequence[str]) -> dict[str, float]:
        """The loss, and what else `metrics` asks for, under the names that `eval_results.json` has for them."""
        timing = speed(prefix, seconds=self.seconds, samples=self.rows, steps=self.steps)
        found = {f"{prefix}_loss": self.loss}
        if "ppl" in metrics:
            found[f"{prefix}_perplexity"] = self.perplexity
        if self.accuracy is not None:
            found[f"{prefix}_accuracy"] = self.accuracy
        return found | timing


def nobody_asks() -> None:
    """For evaluations that a signal ends by itself."""


def evaluate_all(
    policy: Predictor,
    inputs: Inputs,
    runtime: Runtime,
    cfg: Config,
    asked_to_stop: Callable[[], int | None] = nobody_asks,
) -> dict[str, float]:
    """The results of each evaluation set: `eval_loss`, or `eval_NAME_loss` when there are several.

    `asked_to_stop` is asked between batches; when it names a signal, on any process, Interrupted is raised on all.
    """
    results: dict[str, float] = {}
    objective, evals = inputs.stage.objective(), inputs.prepared.evals
    pad_id = inputs.tokenizer.pad_token_id
    size, merged = cfg.train.per_device_eval_batch_size, "merged_batches" not in cfg.model.disable_speedups
    for name, samples in evals.items():
        shown = Progress(f"evaluating {name}", disable=cfg.train.disable_tqdm)
        with _telling_what_takes_less(policy, inputs, runtime, cfg), shown as progress:
            found = evaluate(
                policy,
                objective,
                samples,
                runtime,
                size,
                pad_id,
                merged=merged,
                accuracy="accuracy" in cfg.train.metrics,
                on_batch=progress.rows,
                asked_to_stop=asked_to_stop,
            )
        results |= found.results(prefix(list(evals), name), cfg.train.metrics)
    return results


def try_largest(policy: Predictor, inputs: Inputs, runtime: Runtime, cfg: Config) -> None:
    """Evaluate the largest micro-batch, and forget what comes out.  Raises OutOfMemory."""
    if inputs.prepared.evals:
        with _telling_what_takes_less(policy, inputs, runtime, cfg):
            batch = largest_batch(policy, inputs, runtime, cfg, cfg.train.per_device_eval_batch_size)
            trial.try_evaluation(policy, inputs.stage.objective(), batch, runtime)


def largest_batch(policy: Predictor, inputs: Inputs, runtime: Runtime, cfg: Config, size: int) -> Batch:
    """The largest micro-batch of all evaluation sets, with a `per_device_eval_batch_size` of `size`."""
    samples = max(inputs.prepared.evals.values(), key=lambda rows: int(rows.lengths.max(initial=0)))
    enough = None if "merged_batches" in cfg.model.disable_speedups else ENOUGH[runtime.device.type]
    place = {"rank": runtime.rank, "ranks": runtime.world_size}
    batches = micro_batches(samples.lengths, size, **place, padded=not policy.ragged, enough_tokens=enough)
    return batch_of(samples, batches[0], inputs.tokenizer.pad_token_id, Layout(policy.ragged))


@contextmanager
def _telling_what_takes_less(policy: Predictor, inputs: Inputs, runtime: Runtime, cfg: Config) -> Iterator[None]:
    """Raise OutOfMemory where memory runs out in the block."""
    try:
        yield
    except Exception as problem:
        found = shortage.found(problem)
        if found is None:
            raise
        less = _takes_less(policy, inputs, runtime, cfg)
        raise OutOfMemory(f"out of memory while evaluating: {less} ({found})") from problem


def _takes_less(policy: Predictor, inputs: Inputs, runtime: Runtime, cfg: Config) -> str:
    """The largest `per_device_eval_batch_size` that has room, as a trial shows, and what is alive then."""
    size = cfg.train.per_device_eval_batch_size
    whole = largest_batch(policy, inputs, runtime, cfg, size).input_ids.numel()
    while size > 1:
        size //= 2
        batch = largest_batch(policy, inputs, runtime, cfg, size)
        if batch.input_ids.numel() == whole:
            continue
        try:
            with Live() as live:
                trial.try_evaluation(policy, inputs.stage.objective(), batch, runtime)
        except Exception as problem:
            if not shortage.ran_out(problem):
                raise
        else:
            held = sum(weight.nbytes for weight in policy.parameters())
            return f"per_device_eval_batch_size: {size} takes {gib(held + live.peak)}, weights included"
    return "a smaller cutoff_len, or a smaller model, takes less"


def mean_loss(results: dict[str, float]) -> float:
    """The mean of the losses of all evaluation sets."""
    losses = [value for name, value in results.items() if name.endswith("_loss")]
    return sum(losses) / len(losses)


@torch.no_grad()
def evaluate(
    policy: Predictor,
    objective: Objective,
    samples: Samples,
    runtime: Runtime,
    batch_size: int,
    pad_id: int,
    *,
    merged: bool = True,
    accuracy: bool = False,
    on_batch: Callable[[int, int], None],
    asked_to_stop: Callable[[], int | None] = nobody_asks,
) -> Evaluation:
    """Mean loss of `samples`; `on_batch(done, total)` is told how far it is.  Leaves random states and mode alone.  Raises
    Interrupted on every process when `asked_to_stop` names a signal on one.

    `merged`: see `micro_batches`; `accuracy`: count hits too.  The sum of the losses stays on the device until all are made.
    """
    began = time.perf_counter()
    was_training = policy.training
    policy.eval()
    batches = micro_batches(
        samples.lengths,
        batch_size,
        rank=runtime.rank,
        ranks=runtime.world_size,
        padded=not policy.ragged,
        enough_tokens=ENOUGH[runtime.device.type] if merged else None,
    )
    total, done = sum(row != FILLER for rows in batches for row in rows), 0
    cost, weight = torch.zeros((), dtype=torch.float64, device=runtime.device), 0.0
    hits, places = torch.zeros((), dtype=torch.int64, device=runtime.device), 0
    stop = None
    for rows in batches:
        if stop := asked_to_stop():
            break
        batch = batch_of(samples, rows, pad_id, layout_of(policy))
        weight += objective.weight(batch)
        with runtime.autocast():
            found = objective(policy, runtime.to_device(batch), count_hits=accuracy)
        cost += found.total
        if found.hits is not None:
            hits += found.hits
            places += batch.loss_tokens
        done += sum(row != FILLER for row in rows)
        on_batch(done, total)
    policy.train(was_training)
    summed, everything, stops = runtime.sums(float(cost), weight, as_part(stop))
    if signum := of_sum(stops):
        raise Interrupted(signum)
    right, asked = runtime.sums(float(hits), float(places)) if accuracy else (0.0, 0.0)
    return Evaluation(
        loss=summed / everything if everything else 0.0,
        rows=len(samples),
        steps=len(batches),
        seconds=time.perf_counter() - began,
        accuracy=right / asked if asked else None,
    )


def micro_batches(
    lengths: np.ndarray, batch_size: int, *, rank: int, ranks: int, padded: bool, enough_tokens: int | None
) -> list[list[int]]:
    """One rank's rows in micro-batches, those of like length together, the longest first; every rank gets equally many.

    A micro-batch takes no more room than `batch_size` rows as long as the longest of all, nor, unless a single row does,
    more than `enough_tokens`; None: it has `batch_size` rows.  `lengths` int32 [rows]; `padded`: padding takes room.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    if enough_tokens is None:
        return divide(order, batch_size, ranks, rank)
    room = min(batch_size * int(lengths.max(initial=1)), enough_tokens)
    way = Division(1, 1, ranks, seed=0, shuffle=False, way="token_budget", row_tokens=room, padded=padded)
    return way.micro_batches(order, lengths, rank)
