"""What to change so that a step takes less memory: the cheapest changes that help, each with what it leaves by the estimate.
Knows a run's options and what is measured of its model."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch.optim import Optimizer

from tunesmith.config.schema import Config
from tunesmith.data.division import Division
from tunesmith.data.pipeline import Prepared
from tunesmith.data.sample import Batch, Sample, Samples
from tunesmith.estimate.activations import Layer
from tunesmith.estimate.free import free_bytes
from tunesmith.estimate.memory import MARGIN, Memory, Step, fewest_recomputed, gib
from tunesmith.log import warn
from tunesmith.models import recompute, structure
from tunesmith.models.predict import Predictor
from tunesmith.shortage import ran_out
from tunesmith.train import memory
from tunesmith.train.objectives import Objective
from tunesmith.train.runtime import Runtime

TOLD, BIGGEST = 3, 3
"""Changes, and terms of the estimate, that are told."""

HELPS = 0.98
"""A change that leaves more than this share of what is needed now is not worth a word."""

SHORTEST_TOKENS = 64
"""Rows are not cut below this."""

RANK = 8
"""Of the LoRA that is weighed against training all weights: the default."""

BYTES_OF_FOUR_BITS = 0.5 + 4 / 64
"""Of a weight: its bits, and its share of a float32 for each 64."""


@dataclass(frozen=True, slots=True)
class Change:
    """`text`: options as they are to be written; `leaves`: what a step takes then."""

    text: str
    leaves: Memory


@dataclass(frozen=True, slots=True)
class Situation:
    """A run whose steps are to be made smaller."""

    cfg: Config
    policy: Predictor
    objective: Objective
    chosen: memory.Chosen | None
    optimizer: Optimizer
    runtime: Runtime
    prepared: Prepared
    division: Division
    steps: int
    pad_id: int

    def largest_batch(self, parts: int = 1) -> Batch:
        """The largest micro-batch, or so small a part of it."""
        ragged = self.policy.ragged
        return memory.largest_batch(self.prepared, self.division, self.steps, self.pad_id, ragged, parts)

    def step(self, division: Division, tokens: int | None = None, parts: int = 1) -> Step | None:
        """What a step is made of with this division, rows cut to `tokens`; None when even its measure has no room."""
        rows = self.prepared.train if tokens is None else Shortened(self.prepared.train, tokens)
        for weight in self.policy.parameters():
            weight.grad = None
        if self.is_auto:
            recompute.switch(recompute.recomputable(memory.bare(self.policy.model)), None)
        try:
            batch = replace(self, prepared=replace(self.prepared, train=rows), division=division).largest_batch(parts)
            return memory.measured(
                self.policy,
                self.objective,
                batch,
                self.optimizer,
                self.runtime,
                recomputing=self.is_auto,
                chosen=self.chosen,
            )
        except Exception as problem:
            if not ran_out(problem):
                raise
        return None

    def peak(self, step: Step) -> Memory:
        """The most that it takes, with as many layers recomputed as the options have."""
        free = free_bytes(self.runtime.device)
        return step.peak(fewest_recomputed(step, free) if self.is_auto and free is not None else 0)

    @property
    def is_auto(self) -> bool:
        """Whether layers are recomputed as memory demands."""
        return self.cfg.model.gradient_checkpointing == "auto"


class Shortened:
    """Rows of which only the first tokens are taken."""

    def __init__(self, rows: Samples, tokens: int):
        self.rows, self.tokens = rows, tokens
        self.lengths = np.minimum(rows.lengths, tokens)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        parts, left = list[int](), self.tokens
        for part in row.parts:
            parts += [min(part, left)] if left else []
            left -= min(part, left)
        weights = None if row.weights is None else row.weights[: self.tokens]
        return Sample(row.input_ids[: self.tokens], row.labels[: self.tokens], tuple(parts), weights)

    def where(self, index: int) -> str:
        return self.rows.where(index)


def advice(now: Situation) -> str:
    """What a step takes, its biggest terms, and the cheapest changes that leave less."""
    step = now.step(now.division) or _guessed(now)
    if step is None:
        return "not even a layer has room for a short row; a smaller model takes less"
    needed, free = now.peak(step), free_bytes(now.runtime.device)
    terms = sorted(asdict(needed).items(), key=lambda term: -term[1])[:BIGGEST]
    shown = ", ".join(f"{name} {gib(size)}" for name, size in terms if size)
    if free is None:
        return f"a step takes {gib(needed.total)} (most of it {shown}); {changes(now, step, free)}"
    left = f"{gib(needed.to_come)} of it to come and {gib(free)} free"
    return f"a step takes {gib(needed.total)} (most of it {shown}), {left}; {changes(now, step, free)}"


def warn_of_too_little(now: Situation, needed: Memory) -> None:
    """Warn when a step takes more than is free."""
    free = free_bytes(now.runtime.device)
    if free is not None and needed.to_come > free and (step := now.step(now.division)):
        text = f"a step needs {gib(needed.to_come)} more, and {gib(free)} are free"
        warn("memory", f"{text}; {changes(now, step, free)}")


def changes(now: Situation, step: Step, free: int | None) -> str:
    """The cheapest changes, and what a step takes with each."""
    found = [f"{change.text} would take {gib(change.leaves.total)} instead" for change in cheapest(now, step, free)]
    return "; ".join(found) or "a smaller model takes less"


def cheapest(now: Situation, step: Step, free: int | None) -> list[Change]:
    """The first changes that help, from what only costs time to what trains otherwise."""
    enough = HELPS * now.peak(step).total
    found = (change for ask in CHANGES for change in ask(now, step, free))
    return list(islice((change for change in found if change.leaves.total <= enough), TOLD))


def _smaller_batch(now: Situation, step: Step, free: int | None) -> Iterator[Change]:
    """Fewer rows at once and more micro-batches: the same step.  As many as fit; where nobody knows, the most that are
    fewer."""
    size, accumulation = now.division.batch_size, now.division.accumulation
    last: Change | None = None
    for parts in (parts for parts in range(2, size + 1) if size % parts == 0):
        made = now.step(replace(now.division, batch_size=size // parts, accumulation=accumulation * parts))
        if made is None:
            continue
        more = "" if now.cfg.train.global_batch_size else f" + gradient_accumulation_steps: {accumulation * parts}"
        last = Change(f"per_device_train_batch_size: {size // parts}{more}", now.peak(made))
        if free is None or last.leaves.to_come * MARGIN <= free:
            break
    if last is not None:
        yield last


def _recompute(now: Situation, step: Step, free: int | None) -> Iterator[Change]:
    if now.cfg.model.gradient_checkpointing in (False, "selective"):
        yield Change("gradient_checkpointing: true", recomputed(step).peak())


def recomputed(step: Step) -> Step:
    """The step when of each layer only its result is kept, and the rest made again going back."""
    layers = [
        Layer(min(layer.kept, step.given), layer.forward, layer.backward + min(layer.kept, step.given))
        for layer in step.layers
    ]
    return replace(step, layers=layers)


def _shorter_rows(now: Situation, step: Step, free: int | None) -> Iterator[Change]:
    """Rows at most half as long as the longest is."""
    tokens = _longest(now) // 2
    if tokens >= SHORTEST_TOKENS and (made := _with_rows_of(now, tokens)):
        yield Change(f"cutoff_len: {tokens}", now.peak(made))


def _longest(now: Situation) -> int:
    return now.division.row_tokens if now.prepared.stream else int(now.prepared.train.lengths.max(initial=0))


def _with_rows_of(now: Situation, tokens: int) -> Step | None:
    return now.step(replace(now.division, row_tokens=min(tokens, now.division.row_tokens)), tokens)


def _guessed(now: Situation) -> Step | None:
    """A step that can't be measured as it is, by one of fewer rows, or, where there is only one, of shorter ones."""
    whole = now.largest_batch()
    for parts in (2, 4, 8, 16, 32, 64):
        if len(whole.rows) > 1:
            made, tokens = now.step(now.division, parts=parts), now.largest_batch(parts).input_ids.numel()
        else:
            made, tokens = _with_rows_of(now, _longest(now) // parts), whole.input_ids.numel() // parts
        if made is not None:
            return _grown(made, whole.input_ids.numel() / max(tokens, 1))
    return None


def _grown(step: Step, factor: float) -> Step:
    """The step of so many times the tokens."""
    layers, again = (
        [Layer(*(int(factor * size) for size in astuple(layer))) for layer in each]
        for each in (step.layers, step.recomputed)
    )
    given, loss = int(factor * step.given), int(factor * step.loss)
    return replace(step, layers=layers, recomputed=again, given=given, loss=loss)


def _adapters(now: Situation, step: Step, free: int | None) -> Iterator[Change]:
    """LoRA keeps gradients and an optimizer's state of a few numbers only."""
    if now.cfg.tuning.finetuning_type == "lora":
        return
    model, precision = memory.bare(now.policy.model), now.runtime.precision
    linear = set(structure.linear_names(model))
    modules = [module for name, module in model.named_modules() if name in linear]
    numbers = sum(RANK * sum(weight.shape) for each in modules for weight in each.parameters() if weight.ndim == 2)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    share = numbers / max(trained, 1)
    smaller = replace(
        step,
        weights=min(step.weights, precision.weights.itemsize * sum(weight.numel() for weight in model.parameters())),
        adapters=numbers * precision.trained.itemsize,
        gradients=int(step.gradients * share),
        optimizer=int(step.optimizer * share),
        moving=int(step.moving * share),
        after_loss=0,
    )
    yield Change("finetuning_type: lora", now.peak(smaller))


def _few_bits(now: Situation, step: Step, free: int | None) -> Iterator[Change]:
    """QLoRA holds the frozen linear weights in 4 bits, with a scale for each 64."""
    if now.cfg.tuning.finetuning_type != "lora" or now.cfg.model.quantization_bit is not None:
        return
    model = memory.bare(now.policy.model)
    linear = set(structure.linear_names(model))
    held = [weight for name, module in model.named_modules() if name in linear for weight in module.parameters()]
    frozen = [weight for weight in held if weight.ndim == 2 and not weight.requires_grad]
    saved = sum(weight.nbytes - int(weight.numel() * BYTES_OF_FOUR_BITS) for weight in frozen)
    yield Change("quantization_bit: 4", now.peak(replace(step, weights=step.weights - saved)))


def _short_numbers(now: Situation, step: Step, free: int | None) -> Iterator[Change]:
    """Trained weights, their gradients and what the optimizer keeps of them in two bytes a number instead of four."""
    precision = now.runtime.precision
    if precision.trained != torch.float32 or precision.scaler or now.cfg.tuning.finetuning_type == "lora":
        return
    shorter = replace(
        step,
        weights=step.weights // 2,
        gradients=step.gradients // 2,
        optimizer=step.optimizer // 2,
        moving=step.moving // 2,
    )
    yield Change("compute_type: pure_bf16", now.peak(shorter))


CHANGES: tuple[Callable[[Situation, Step, int | None], Iterator[Change]], ...] = (
    _smaller_batch, _recompute, _shorter_rows, _adapters, _few_bits, _short_numbers,
)  # fmt: skip
"""From what only costs time, and leaves the step as it is, to what trains otherwise."""
