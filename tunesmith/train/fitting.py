"""Which changes make a run fit into a device's memory, the cheapest first.  Knows a case and what options cost; changes
nothing itself."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from tunesmith.config.rules import NOT_BUILT_AT_ALL
from tunesmith.config.schema import Config, fields
from tunesmith.estimate.formula import Load
from tunesmith.estimate.memory import Memory
from tunesmith.train.estimated import Case, memory_of

RECOMPUTING, HALVING, QUANTIZING, SHORTENING, ADAPTING = 1.3, 1.05, 20.0, 100.0, 400.0
"""What each change costs: of time, or, far above that, because it changes what is learned."""

SHORTEST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Change:
    """Options and their new values; `cost` orders them."""

    options: dict[str, Any]
    cost: float
    same_result: bool
    """Whether what is learned stays the same but for rounding."""
    memory: Memory

    def diff(self, cfg: Config) -> list[str]:
        """Lines of a diff of the options."""
        before = cfg.flat()
        lines = []
        for name, value in self.options.items():
            lines += [f"- {name}: {_yaml(before[name])}", f"+ {name}: {_yaml(value)}"]
        return lines


def cheapest(case: Case, *, same_result: bool = False) -> Change | None:
    """The cheapest change with which a step fits into the case's device; None where none does.  `same_result`: only of those
    that leave what is learned as it is."""
    for options, cost, same in sorted(_possible(case), key=lambda each: each[1]):
        if same_result and not same:
            continue
        changed = with_options(case, options)
        if not changed.is_known:
            continue  # tracing each would take minutes
        memory = memory_of(changed)
        if case.device.fits(memory):
            return Change(options, cost, same, memory)
    return None


def with_options(case: Case, options: dict[str, Any]) -> Case:
    """The case with other values of options; rows and micro-batches follow."""
    cfg = changed(case.cfg, options)
    load = case.load
    if "cutoff_len" in options:
        scale = options["cutoff_len"]
        cut = tuple(min(length, scale) for length in load.lengths)
        load = Load(cut, min(load.places, sum(cut)))
    before, now = case.cfg.train.per_device_train_batch_size, cfg.train.per_device_train_batch_size
    if now < before:
        load = _smaller(load, now / before)
    return replace(case, cfg=cfg, load=load)


def _smaller(load: Load, share: float) -> Load:
    """The largest micro-batch of so much smaller ones: the longest row stays."""
    room = max(load.tokens * share, max(load.lengths))
    kept: list[int] = []
    for length in sorted(load.lengths, reverse=True):
        if not kept or sum(kept) + length <= room:
            kept.append(length)
    return Load(tuple(kept), max(1, min(sum(kept), load.places * sum(kept) // load.tokens)))


def changed(cfg: Config, options: dict[str, Any]) -> Config:
    """The config with other values."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        sections.setdefault(fields()[name][0], {})[name] = value
    update = {name: cfg.__dict__[name].model_copy(update=values) for name, values in sections.items()}
    return cfg.model_copy(update=update)


def _possible(case: Case) -> Iterator[tuple[dict[str, Any], float, bool]]:
    """Combinations of changes, what they cost, and whether the result stays."""
    cfg = case.cfg
    recomputing: list[dict[str, Any]] = [{}]
    if cfg.model.gradient_checkpointing in (False, "selective"):
        recomputing.append({"gradient_checkpointing": "auto"})
    methods: list[tuple[dict[str, Any], float]] = [({}, 1.0)]
    if cfg.tuning.finetuning_type in ("full", "freeze"):
        methods.append(({"finetuning_type": "lora"}, ADAPTING))
    elif "quantization_bit" not in NOT_BUILT_AT_ALL and cfg.model.quantization_bit is None:
        methods.append(({"quantization_bit": 4}, QUANTIZING))
    lengths: list[tuple[dict[str, Any], float]] = [({}, 1.0)]
    shorter = max(case.load.lengths) // 2
    while shorter >= SHORTEST_TOKENS:
        lengths.append(({"cutoff_len": shorter}, SHORTENING * max(case.load.lengths) / shorter))
        shorter //= 2
    for way, batch, (method, price), (length, loss) in product(recomputing, _batches(cfg), methods, lengths):
        options = way | batch[0] | method | length
        if options:
            cost = batch[1] * price * loss * (RECOMPUTING if way else 1.0)
            yield options, cost, not method and not length


def _batches(cfg: Config) -> Iterator[tuple[dict[str, Any], float]]:
    """Smaller micro-batches with as many more accumulated."""
    yield {}, 1.0
    size, times = cfg.train.per_device_train_batch_size, 1
    while size % 2 == 0:
        size, times = size // 2, times * 2
        options: dict[str, Any] = {"per_device_train_batch_size": size}
        if cfg.train.global_batch_size is None:
            options["gradient_accumulation_steps"] = cfg.train.gradient_accumulation_steps * times
        yield options, HALVING ** times.bit_length()


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
