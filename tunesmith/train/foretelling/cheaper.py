"""What a step takes with other options, as a run's own model shows it where memory is short or ran out.  Knows a run's options
and what is measured of its model; which changes there are, `changes.py` knows."""

from dataclasses import asdict, astuple, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from tunesmith.config.schema import Config
from tunesmith.data.batching.division import Division
from tunesmith.data.pipeline import Prepared
from tunesmith.data.sample import Batch, Sample, Samples
from tunesmith.estimate.activations import Layer
from tunesmith.estimate.free import free_bytes
from tunesmith.estimate.memory import Memory, Step, fewest_recomputed, gib
from tunesmith.log import warn
from tunesmith.models import recompute, structure
from tunesmith.models.predict import Predictor
from tunesmith.shortage import ran_out
from tunesmith.train.foretelling import memory
from tunesmith.train.foretelling.changes import Change, Taking, combined, first_that_fits, single
from tunesmith.train.objectives import Objective
from tunesmith.train.policy import layout_of
from tunesmith.train.runtime import Runtime

TOLD, BIGGEST = 3, 3
"""Changes, and terms of the estimate, that are told."""

HELPS = 0.98
"""A change that leaves more than this share of what is needed now is not worth a word."""

MOST_COMBINED = 40
"""Combinations that are weighed where no single change is enough: each is measured."""

BYTES_OF_FOUR_BITS = 0.5 + 4 / 64
"""Of a weight: its bits, and its share of a float32 for each 64."""


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
        layout = layout_of(self.policy, trained=True)
        return memory.largest_batch(self.prepared, self.division, self.steps, self.pad_id, layout, parts)

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
        return step.peak(
            fewest_recomputed(step, free, self.runtime.device.type) if self.is_auto and free is not None else 0
        )

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
        return f"a step takes {gib(needed.total)} (most of it {shown}); {told(now, step, free)}"
    left = f"{gib(needed.to_come)} of it to come and {gib(free)} free"
    return f"a step takes {gib(needed.total)} (most of it {shown}), {left}; {told(now, step, free)}"


def warn_of_too_little(now: Situation, needed: Memory) -> None:
    """Warn when a step takes more than is free."""
    free = free_bytes(now.runtime.device)
    if free is not None and needed.to_come > free and (step := now.step(now.division)):
        text = f"a step needs {gib(needed.to_come)} more, and {gib(free)} are free"
        warn("memory", f"{text}; {told(now, step, free)}")


def told(now: Situation, step: Step, free: int | None) -> str:
    """The cheapest changes, and what a step takes with each."""
    found = [f"{each.change.text} would take {gib(each.memory.total)} instead" for each in cheapest(now, step, free)]
    return "; ".join(found) or "a smaller model takes less"


def cheapest(now: Situation, step: Step, free: int | None) -> list[Taking]:
    """The first single changes that help, of each kind the mildest that fits, or the strongest; where none of them fits, the
    cheapest combination that does comes first."""
    enough = HELPS * now.peak(step).total
    kinds = _kinds(now)
    measured = (_of_one_kind(now, step, kind, free) for kind in kinds)
    found = list(islice((each for each in measured if each and each.memory.total <= enough), TOLD))
    if free is not None and not any(fits(now, each.memory, free) for each in found):
        several = [each for each in combined(kinds) if not any(each in kind for kind in kinds)][:MOST_COMBINED]
        best = first_that_fits(several, lambda each: leaves(now, step, each, free), lambda each: fits(now, each, free))
        found = [*([best] if best else []), *found][:TOLD]
    return found


def _kinds(now: Situation) -> list[list[Change]]:
    precision = now.runtime.precision
    return single(
        now.cfg,
        rows=now.division.batch_size,
        accumulation=now.division.accumulation,
        longest=_longest(now),
        halves=precision.trained == torch.float32 and not precision.scaler,
    )


def fits(now: Situation, memory: Memory, free: int) -> bool:
    """Whether what a step takes beside the weights that are there has room."""
    return memory.room(now.runtime.device.type) <= free


def _of_one_kind(now: Situation, step: Step, kind: list[Change], free: int | None) -> Taking | None:
    """The mildest that fits, else the strongest that can be measured; where nobody knows what is free, the mildest."""
    last: Taking | None = None
    for change in kind:
        memory = leaves(now, step, change, free)
        if memory is None:
            continue
        last = Taking(change, memory)
        if free is None or fits(now, memory, free):
            break
    return last


def leaves(now: Situation, step: Step, change: Change, free: int | None) -> Memory | None:
    """What a step takes with the change; None when even its measure has no room, or nobody knows for how much room to
    recompute."""
    options = change.options
    way = options.get("gradient_checkpointing")
    made: Step | None = None if way == "auto" and free is None else step
    if made and ("per_device_train_batch_size" in options or "cutoff_len" in options):
        made = _divided(now, options)
    if made is None:
        return None
    if "finetuning_type" in options:
        made = _with_adapters(now, made)
    if "quantization_bit" in options or options.get("finetuning_type") == "qlora":
        made = _in_few_bits(now, made)
    if options.get("compute_type") == "pure_bf16":
        made = _in_short_numbers(made)
    if way == "auto" and free is not None:
        made = replace(made, recomputed=recomputed(made).layers)
        return made.peak(fewest_recomputed(made, free, now.runtime.device.type))
    return now.peak(recomputed(made) if way else made)


def _divided(now: Situation, options: dict[str, Any]) -> Step | None:
    """The step of fewer or shorter rows."""
    size = options.get("per_device_train_batch_size", now.division.batch_size)
    times = now.division.batch_size // size
    division = replace(now.division, batch_size=size, accumulation=now.division.accumulation * times)
    tokens = options.get("cutoff_len")
    if tokens is not None:
        division = replace(division, row_tokens=min(tokens, division.row_tokens))
    return now.step(division, tokens)


def recomputed(step: Step) -> Step:
    """The step when of each layer only its result is kept, and the rest made again going back."""
    layers = [
        Layer(min(layer.kept, step.given), layer.forward, layer.backward + min(layer.kept, step.given))
        for layer in step.layers
    ]
    return replace(step, layers=layers)


def _longest(now: Situation) -> int:
    return now.division.row_tokens if now.prepared.stream else int(now.prepared.train.lengths.max(initial=0))


def _guessed(now: Situation) -> Step | None:
    """A step that can't be measured as it is, by one of fewer rows, or, where there is only one, of shorter ones."""
    whole = now.largest_batch()
    for parts in (2, 4, 8, 16, 32, 64):
        if len(whole.rows) > 1:
            made, tokens = now.step(now.division, parts=parts), now.largest_batch(parts).input_ids.numel()
        else:
            made, tokens = _divided(now, {"cutoff_len": _longest(now) // parts}), whole.input_ids.numel() // parts
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


def _with_adapters(now: Situation, step: Step) -> Step:
    """LoRA keeps gradients and an optimizer's state of a few numbers only."""
    model, precision, rank = memory.bare(now.policy.model), now.runtime.precision, now.cfg.tuning.lora_rank
    linear = set(structure.linear_names(model))
    modules = [module for name, module in model.named_modules() if name in linear]
    numbers = sum(rank * sum(weight.shape) for each in modules for weight in each.parameters() if weight.ndim == 2)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    share = numbers / max(trained, 1)
    return replace(
        step,
        weights=min(step.weights, precision.weights.itemsize * sum(weight.numel() for weight in model.parameters())),
        adapters=numbers * precision.trained.itemsize,
        gradients=int(step.gradients * share),
        optimizer=int(step.optimizer * share),
        moving=int(step.moving * share),
        after_loss=0,
        embedded=0,
    )


def _in_few_bits(now: Situation, step: Step) -> Step:
    """QLoRA holds the frozen linear weights in 4 bits, with a scale for each 64."""
    model = memory.bare(now.policy.model)
    linear = {name for name in structure.linear_names(model) if ".lora_" not in name}
    held = [weight for name, module in model.named_modules() if name in linear for weight in module.parameters()]
    itemsize = now.runtime.precision.weights.itemsize
    numbers = sum(weight.numel() for weight in held if weight.ndim == 2)
    return replace(step, weights=step.weights - int(numbers * (itemsize - BYTES_OF_FOUR_BITS)))


def _in_short_numbers(step: Step) -> Step:
    """Trained weights, their gradients and what the optimizer keeps of them in two bytes a number instead of four."""
    return replace(
        step,
        weights=step.weights // 2,
        gradients=step.gradients // 2,
        optimizer=step.optimizer // 2,
        moving=step.moving // 2,
    )
