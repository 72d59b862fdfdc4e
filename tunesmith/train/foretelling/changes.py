"""The changes of options that make a step take less memory, from the cheapest on.  Knows options and what they cost; what a
step takes with them is said by others: formulas (`fitting.py`) before a run, a measure (`cheaper.py`) in it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import log2
from typing import Any

from tunesmith.config.schema import Config, fields
from tunesmith.estimate.memory import Memory

HALVING, RECOMPUTING_SOME, RECOMPUTING, QUANTIZING, SHORTENING, ADAPTING, TRUNCATING = (
    1.05,
    1.15,
    1.3,
    20,
    100,
    400,
    500,
)
"""What each costs: of time, or, far above that, because it changes what is learned."""

SHORTEST_TOKENS = 64
"""Rows are not cut below this."""


@dataclass(frozen=True, slots=True)
class Change:
    """Options and their new values; `cost` orders changes."""

    options: dict[str, Any]
    cost: float
    same_result: bool = False
    """Whether what is learned stays the same but for rounding."""

    @property
    def text(self) -> str:
        """`per_device_train_batch_size: 1 + gradient_accumulation_steps: 8`, to be written so."""
        return " + ".join(f"{name}: {_yaml(value)}" for name, value in self.options.items())

    def diff(self, cfg: Config) -> Iterator[str]:
        """Lines of a diff of the options."""
        before = cfg.flat()
        for name, value in self.options.items():
            yield f"- {name}: {_yaml(before[name])}"
            yield f"+ {name}: {_yaml(value)}"


@dataclass(frozen=True, slots=True)
class Taking:
    """A change and what a step takes with it."""

    change: Change
    memory: Memory


def single(cfg: Config, *, rows: int, accumulation: int, longest: int, halves: bool) -> list[list[Change]]:
    """What can be changed alone, each from the mildest form to the strongest, the cheapest first.  `rows`: of a micro-batch;
    `longest`: tokens of the longest row; `halves`: whether what is trained is held in four bytes, and could be in two."""
    kinds = [
        list(_smaller_batches(cfg, rows, accumulation)),
        list(_recomputing(cfg)),
        list(_methods(cfg)),
        list(_shorter_rows(longest)),
    ]
    if halves and cfg.tuning.finetuning_type in ("full", "freeze"):
        kinds.append([Change({"compute_type": "pure_bf16"}, TRUNCATING)])
    return sorted((kind for kind in kinds if kind), key=lambda kind: kind[0].cost)


def combined(kinds: Sequence[Sequence[Change]]) -> list[Change]:
    """Every combination of one of each kind or none, the cheapest first."""
    found = []
    for chosen in product(*((None, *kind) for kind in kinds)):
        parts = [each for each in chosen if each is not None]
        options = {name: value for each in parts for name, value in each.options.items()}
        if parts and len(options) == sum(len(each.options) for each in parts):
            cost = 1.0
            for each in parts:
                cost *= each.cost
            found.append(Change(options, cost, all(each.same_result for each in parts)))
    return sorted(found, key=lambda each: each.cost)


def first_that_fits(
    changes: Iterable[Change], takes: Callable[[Change], Memory | None], fits: Callable[[Memory], bool]
) -> Taking | None:
    """The first of the changes with which a step fits.  `takes`: None where nobody can say."""
    for change in changes:
        memory = takes(change)
        if memory is not None and fits(memory):
            return Taking(change, memory)
    return None


def changed(cfg: Config, options: dict[str, Any]) -> Config:
    """The config with other values."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        sections.setdefault(fields()[name][0], {})[name] = value
    update = {name: cfg.__dict__[name].model_copy(update=values) for name, values in sections.items()}
    return cfg.model_copy(update=update)


def _smaller_batches(cfg: Config, rows: int, accumulation: int) -> Iterator[Change]:
    """Fewer rows at once and as many more micro-batches: the same step."""
    for parts in (parts for parts in range(2, rows + 1) if rows % parts == 0):
        options: dict[str, Any] = {"per_device_train_batch_size": rows // parts}
        if cfg.train.global_batch_size is None:
            options["gradient_accumulation_steps"] = accumulation * parts
        yield Change(options, HALVING ** log2(parts), same_result=True)


def _recomputing(cfg: Config) -> Iterator[Change]:
    """As many layers as memory demands, or all."""
    if cfg.model.gradient_checkpointing in (False, "selective"):
        yield Change({"gradient_checkpointing": "auto"}, RECOMPUTING_SOME, same_result=True)
        yield Change({"gradient_checkpointing": True}, RECOMPUTING, same_result=True)


def _methods(cfg: Config) -> Iterator[Change]:
    few = cfg.model.compute_type != "fp8"  # which holds frozen weights in 8 bits itself
    if cfg.tuning.finetuning_type in ("full", "freeze"):
        yield Change({"finetuning_type": "lora"}, ADAPTING)
        if few:
            yield Change({"finetuning_type": "qlora"}, ADAPTING * QUANTIZING)
    elif cfg.tuning.finetuning_type == "lora" and cfg.model.quantization_bit is None and few:
        yield Change({"quantization_bit": 4}, QUANTIZING)


def _shorter_rows(longest: int) -> Iterator[Change]:
    tokens = longest // 2
    while tokens >= SHORTEST_TOKENS:
        yield Change({"cutoff_len": tokens}, SHORTENING * longest / tokens)
        tokens //= 2


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
