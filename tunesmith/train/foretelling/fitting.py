"""What a step takes with other options, by formulas, and the cheapest change with which it fits.  Knows a case; which changes
there are, `changes.py` knows."""

from dataclasses import replace
from typing import Any

from tunesmith.estimate.formula import FORMATS, Load
from tunesmith.estimate.memory import Memory
from tunesmith.train.foretelling.changes import Change, Taking, changed, combined, first_that_fits, single
from tunesmith.train.foretelling.estimated import Case, memory_of


def cheapest(case: Case, *, same_result: bool = False) -> Taking | None:
    """The cheapest change with which a step fits into the case's device; None where none does.  `same_result`: only of those
    that leave what is learned as it is."""
    train = case.cfg.train
    kinds = single(
        case.cfg,
        rows=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
        longest=max(case.load.lengths, default=0),
        halves=case.device.bf16 and case.way.formats.trained == 4 and case.precision != "fp16",
    )
    possible = [change for change in combined(kinds) if change.same_result or not same_result]
    return first_that_fits(possible, lambda change: takes(case, change), case.device.fits)


def takes(case: Case, change: Change) -> Memory | None:
    """What a step takes with the change; None where there are no formulas, as tracing each would take minutes."""
    made = with_options(case, change.options)
    return memory_of(made) if made.is_known else None


def with_options(case: Case, options: dict[str, Any]) -> Case:
    """The case with other values of options; rows and micro-batches follow."""
    cfg = changed(case.cfg, options)
    load = case.load
    if "cutoff_len" in options:
        scale = options["cutoff_len"]
        cut = tuple(min(length, scale) for length in load.lengths)
        load = Load(cut, min(load.places, sum(cut)), min(load.shared, max(min(cut) - 2, 0)))
    before, now = case.cfg.train.per_device_train_batch_size, cfg.train.per_device_train_batch_size
    if now < before:
        load = _smaller(load, now / before)
    written = options.get("compute_type", case.precision)
    return replace(case, cfg=cfg, load=load, precision=written if written in FORMATS else case.precision)


def _smaller(load: Load, share: float) -> Load:
    """The largest micro-batch of so much smaller ones: the longest row stays."""
    whole = sum(load.lengths)
    room = max(whole * share, max(load.lengths))
    kept: list[int] = []
    for length in sorted(load.lengths, reverse=True):
        if not kept or sum(kept) + length <= room:
            kept.append(length)
    places = max(1, min(sum(kept), load.places * sum(kept) // whole))
    return Load(tuple(kept), places, load.shared if len(kept) > 1 else 0)
