"""What a run will take, from its options, its rows and its model's `config.json`: memory, steps, time.  Knows how the trainer
divides rows and which formulas there are; loads no weights.

Steps and tokens come from the functions that the trainer counts with.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunesmith.config.schema import Config
from tunesmith.data.batching.division import FILLER, Division
from tunesmith.data.batching.largest import largest
from tunesmith.data.batching.starts import shared_by_all
from tunesmith.data.sample import IGNORED, Samples
from tunesmith.estimate import formula, shapes, sharding, work
from tunesmith.estimate.devices import Device
from tunesmith.estimate.formula import FORMATS, Load, Loss, Method, Way
from tunesmith.estimate.history import shares
from tunesmith.estimate.memory import Memory
from tunesmith.estimate.optimizers import KEPT
from tunesmith.estimate.shapes import Shape
from tunesmith.estimate.work import Range, Rows
from tunesmith.train.chosen_loss import COMPARING
from tunesmith.train.inputs import Inputs
from tunesmith.train.timetable import Timetable, division, timetable

if TYPE_CHECKING:
    from tunesmith.train.foretelling.traced import Traced

WRITTEN_BYTES_A_SECOND = Range(2e9, 8e8, 1e8)
"""What disks write, from fast to slow."""

START_SECONDS = Range(5, 15, 60)
"""Until libraries are imported, beside reading weights."""

MICRO_BATCH_SECONDS = {"cpu": Range(2e-4, 1e-3, 3e-3), "cuda": Range(1e-4, 6e-4, 1.5e-3)}
"""What starting the operations of one layer takes, forward and backward, however small they are."""


@dataclass(frozen=True)
class Case:
    """A run on one kind of device.  `shape` is None for an architecture without formulas."""

    cfg: Config
    config: dict[str, Any]
    shape: Shape | None
    device: Device
    precision: str
    ranks: int
    load: Load
    due: Timetable
    division: Division
    trained: Rows
    """In the whole run, all devices."""
    evaluated: Rows
    """In one evaluation."""
    prepared_seconds: float = 0.0

    @property
    def way(self) -> Way:
        written = self.cfg.model.gradient_checkpointing
        recomputed: Literal["", "everything", "offload"] = "everything" if written is True else ""
        if written == "offload":
            recomputed = "everything" if self.device.kind == "cpu" else "offload"
        return Way(FORMATS[self.precision], self.device.kind, recomputed, self.ranks)

    @cached_property
    def traced(self) -> "Traced":
        """A step of the model without its weights; takes some seconds."""
        from transformers import AutoConfig

        from tunesmith.models.precision import BY_NAME
        from tunesmith.train.foretelling.traced import trace

        kind = self.config.get("model_type", "")
        config = AutoConfig.for_model(kind, **{k: v for k, v in self.config.items() if k != "model_type"})
        tuning, model = self.cfg.tuning, self.cfg.model
        bits = bits_of(self.cfg, self.precision)
        if tuning.finetuning_type == "qlora":
            tuning = tuning.model_copy(update={"finetuning_type": "lora"})
        if model.gradient_checkpointing == "auto":
            model = model.model_copy(update={"gradient_checkpointing": True})
        cfg = self.cfg.model_copy(update={"tuning": tuning, "model": model})
        gpu, load = self.device.kind == "cuda", self.load
        return trace(cfg, config, BY_NAME[self.precision], load.computed, places=load.places, gpu=gpu, bits=bits)

    @property
    def computed(self) -> float:
        """Share of the rows' tokens that is computed, as in the largest micro-batch."""
        return self.load.tokens / max(sum(self.load.lengths), 1)

    @property
    def is_known(self) -> bool:
        """Whether there are formulas for all of it."""
        cfg = self.cfg
        return (
            self.shape is not None
            and method(cfg, self.shape, self.precision) is not None
            and cfg.optim.optim in KEPT
            and not cfg.optim.optim_args
            and cfg.model.gradient_checkpointing != "selective"
            and not {"fused_loss", "fused_adapters", "lighter_layers"} & set(cfg.model.disable_speedups)
            and not cfg.model.adapter_name_or_path
        )


def case_of(
    cfg: Config, inputs: Inputs, device: Device, *, ranks: int, precision: str, prepared_seconds: float = 0.0
) -> Case:
    """What the run is made of on this kind of device."""
    config = json.loads((inputs.source.folder / "config.json").read_text(encoding="utf-8"))
    shape = shapes.read(config)
    padded = "no_padding" in cfg.model.disable_speedups or cfg.model.flash_attn not in ("auto", "flex", "fa2", "fa3")
    divided = division(cfg, ranks, padded=padded, kind=device.kind)
    prepared = inputs.prepared
    due = timetable(cfg.train, prepared.feed(divided).per_epoch, bool(prepared.evals))
    lengths, places = _largest(inputs, divided, due.total, padded=padded)
    shares_starts = not padded and len(lengths) > 1 and _shares(cfg, config)
    passes = due.total / due.per_epoch if due.per_epoch else None
    whole = _rows(prepared.train, inputs.prepared.report.trained_tokens)
    if passes is None:  # of a stream only the first rows are known
        whole = whole.times(divided.window_rows * due.total / max(len(prepared.train), 1))
    else:
        whole = whole.times(passes)
    evaluated = [_rows(samples, int(samples.lengths.sum())) for samples in prepared.evals.values()]
    return Case(
        cfg,
        config,
        shape,
        device,
        precision,
        ranks,
        Load(tuple(lengths), places, shared_by_all(prepared.train) if shares_starts else 0),
        due,
        divided,
        whole,
        Rows(*(sum(part) for part in zip(*((r.tokens, r.places, r.squares) for r in evaluated), strict=True)))
        if evaluated
        else Rows(0, 0, 0),
        prepared_seconds,
    )


def _shares(cfg: Config, config: dict[str, Any]) -> bool:
    """Whether starts that rows share are computed once, as far as options and a model's config tell."""
    said = config.get("text_config", config)
    turns = str(said.get("rope_parameters") or said.get("rope_scaling"))
    return (
        "shared_prefix" not in cfg.model.disable_speedups
        and cfg.model.flash_attn == "auto"
        and not (cfg.tuning.lora_dropout or cfg.model.dropout_rate or cfg.optim.neftune_noise_alpha)
        and not any("dropout" in name and value for name, value in said.items())
        and "dynamic" not in turns
        and "longrope" not in turns
    )


def _largest(inputs: Inputs, divided: Division, steps: int, *, padded: bool) -> tuple[Sequence[int], int]:
    """Lengths of what attention sees in the largest micro-batch, and how many of its tokens are learned."""
    samples = inputs.prepared.train
    if inputs.prepared.stream is not None:
        return [divided.row_tokens] * divided.batch_size, divided.row_tokens * divided.batch_size
    rows = [row for row in largest(samples.lengths, divided, steps) if row != FILLER]
    found = [samples[row] for row in rows]
    places = sum(int((sample.labels[1:] != IGNORED).sum()) for sample in found)
    if padded:
        return [int(samples.lengths[rows].max())] * len(rows), places
    return [int(part) for sample in found for part in (sample.parts or [len(sample.input_ids)])], places


def _rows(samples: Samples, places: int) -> Rows:
    lengths = samples.lengths.astype(np.float64)
    return Rows(float(lengths.sum()), float(places), float((lengths * lengths).sum()))


def bits_of(cfg: Config, precision: str) -> int | None:
    """What frozen linear layers are held in beside an adapter; None: in no short form."""
    if cfg.tuning.finetuning_type not in ("lora", "qlora"):
        return None
    least = 4 if cfg.tuning.finetuning_type == "qlora" else 8 if precision == "fp8" else None
    return cfg.model.quantization_bit or least


def method(cfg: Config, shape: Shape, precision: str) -> Method | None:
    """What is trained; None where formulas do not know it."""
    tuning = cfg.tuning
    if tuning.finetuning_type == "full":
        return Method("full")
    if tuning.finetuning_type == "freeze":
        if tuning.freeze_extra_modules or "all" not in tuning.freeze_trainable_modules:
            return None
        return Method("freeze", trained_layers=tuning.freeze_trainable_layers)
    targets = shapes.adapted(shape, tuning.lora_target)
    if targets is None or tuning.use_dora or tuning.additional_target or tuning.lora_dropout:
        return None
    return Method("lora", tuning.lora_rank, tuple(targets), bits=bits_of(cfg, precision))


def step_of(case: Case) -> formula.Step | None:
    """The parts of a step by formulas; None where there are none."""
    if not case.is_known or case.shape is None:
        return None
    trained = method(case.cfg, case.shape, case.precision)
    assert trained is not None
    optim = case.cfg.optim
    asked = Loss(anchored=optim.loss in COMPARING)
    return formula.step(case.shape, trained, case.load, case.way, optim.optim, asked)


def memory_of(case: Case, sharing: str = "ddp") -> Memory:
    """What a step takes of one device at the most, by formulas, or traced where there are none."""
    found = _memory_of(case, sharing)
    return found.recorded() if case.cfg.model.cuda_graphs and case.device.kind == "cuda" and case.ranks == 1 else found


def _memory_of(case: Case, sharing: str) -> Memory:
    step = step_of(case)
    if step is None or case.shape is None:
        return _traced(case)
    memory = step.peak(_chosen(case, step))
    if sharing == "ddp":
        return memory
    once = replace(memory, gradients=memory.gradients // (2 if case.ranks > 1 else 1))
    return sharding.shared(once, sharing, case.ranks, case.shape.layers)


def _chosen(case: Case, step: formula.Step) -> int:
    """Layers that `gradient_checkpointing: auto` would recompute on this device."""
    if case.cfg.model.gradient_checkpointing != "auto":
        return 0
    counts = range(len(step.recomputed) + 1)
    return next((count for count in counts if case.device.fits(step.peak(count))), counts[-1])


def _traced(case: Case) -> Memory:
    """By running the model's shapes through a step."""
    found = case.traced
    gradients = found.trained * FORMATS[case.precision].trained
    rest = found.to_come - gradients - found.optimizer
    return Memory(found.weights, 0, gradients * (2 if case.ranks > 1 else 1), found.optimizer, rest, 0, 0)


@dataclass(frozen=True, slots=True)
class Work:
    """What one device has to compute: operations of training, and of one evaluation.  `hidden`, `layers`: of the model."""

    training: float
    evaluating: float
    hidden: int
    layers: int


def work_of(case: Case, *, tracing: bool = True) -> Work | None:
    """By formulas; else, with `tracing`, by the products of a traced step; None where nobody knows."""
    each = case.trained.times(1 / case.ranks)
    each = replace(each, tokens=each.tokens * case.computed)
    if case.shape is not None and (trained := method(case.cfg, case.shape, case.precision)) is not None:
        training = work.training(case.shape, trained, each, recomputed=bool(case.way.recomputed))
        reads = work.forward(case.shape, case.evaluated) + work.head(case.shape, case.evaluated)
        return Work(training, reads / case.ranks, case.shape.hidden, case.shape.layers)
    if not tracing or not case.load.tokens:
        return None
    found = case.traced
    again = 2 if case.way.recomputed else 1
    a_token = found.operations / case.load.tokens
    # Attention: two products forward, half of each, again where layers are recomputed, and four on the way back.
    a_square = 2 * found.attended * (1 + 2 / again)
    reading = 1 / (3 if case.cfg.tuning.finetuning_type == "full" else 2) / (1.5 if again > 1 else 1)
    return Work(
        a_token * each.tokens + a_square * each.squares,
        (a_token * case.evaluated.tokens + a_square * case.evaluated.squares) * reading / case.ranks,
        found.hidden,
        found.layers,
    )


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds."""

    starting: Range
    preparing: Range
    training: Range
    evaluating: Range
    saving: Range

    @property
    def total(self) -> Range:
        return self.starting + self.preparing + self.training + self.evaluating + self.saving


def times_of(case: Case, memory: Memory, *, tracing: bool = True) -> Times | None:
    """How long the run takes; None where operations or the device's rate are not known."""
    todo, rate = work_of(case, tracing=tracing), case.device.rate(FORMATS[case.precision].compute)
    if todo is None or not rate:
        return None
    reached = shares(case.device.name, case.device.kind, todo.hidden)
    started = MICRO_BATCH_SECONDS[case.device.kind].times(todo.layers)
    training = work.seconds(todo.training, rate, reached) + started.times(_micro_batches(case))
    evaluations = _evaluations(case.due, bool(case.evaluated.tokens))
    evaluating = work.seconds(todo.evaluating, rate, reached).times(evaluations)
    checkpoint = memory.optimizer + 2 * (memory.adapters or memory.gradients)
    if not memory.adapters:
        checkpoint += memory.weights
    saves = sum(case.due.saves_at(step) for step in range(1, case.due.total + 1)) + 1
    disk = WRITTEN_BYTES_A_SECOND
    saving = Range(checkpoint / disk.low, checkpoint / disk.likely, checkpoint / disk.high).times(saves)
    loading = Range(memory.weights / disk.low, memory.weights / disk.likely, memory.weights / disk.high)
    preparing = Range(case.prepared_seconds, case.prepared_seconds, case.prepared_seconds)
    return Times(START_SECONDS + loading, preparing, training, evaluating, saving)


def _micro_batches(case: Case) -> float:
    """Of the whole run, on one device, about."""
    if case.division.merged and case.trained.tokens:
        longest = max(sum(case.load.lengths), 1)
        return max(case.due.total, case.trained.tokens / case.ranks / longest)
    return case.due.total * case.division.accumulation


def _evaluations(due: Timetable, has_rows: bool) -> int:
    if not has_rows:
        return 0
    within = sum(due.evaluates_at(step) for step in range(1, due.total + 1))
    return within + (not due.evaluates_at(due.total)) + due.on_start
