"""An estimate in words, for one device or as a table of methods by devices.  Knows numbers and where they come from; computes
none itself."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.config.schema import Config
from tunesmith.data.telling.totals import Totals, count
from tunesmith.estimate import history, work
from tunesmith.estimate.devices import Device
from tunesmith.estimate.formula import FORMATS, trained
from tunesmith.estimate.memory import Memory, gib
from tunesmith.estimate.money import Price
from tunesmith.estimate.words import duration, durations, money
from tunesmith.train.foretelling.calibrate import Measured
from tunesmith.train.foretelling.changes import Taking, changed
from tunesmith.train.foretelling.costs import price_of
from tunesmith.train.foretelling.estimated import Case, Times, case_of, memory_of, method, times_of, work_of
from tunesmith.train.foretelling.fitting import cheapest
from tunesmith.train.foretelling.foretold import remember
from tunesmith.train.foretelling.machine import precision_on
from tunesmith.train.inputs import Inputs
from tunesmith.train.timetable import sized

ALSO = 2
"""Further prices that are shown."""


@dataclass(frozen=True)
class Estimate:
    """Everything about a run on one kind of device."""

    case: Case
    memory: Memory
    times: Times | None
    prices: Sequence[Price]
    change: Taking | None
    """What would make it fit, where it does not."""
    measured: Measured | None = None
    """What a few real steps took."""

    @property
    def fits(self) -> bool:
        return self.case.device.fits(self.memory)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        case, times = self.case, self.times
        return {
            "device": case.device.name,
            "devices": case.ranks,
            "precision": case.precision,
            "by": "formula" if case.is_known else "trace",
            "steps": case.due.total,
            "tokens": case.trained.tokens,
            "memory_bytes": asdict(self.memory)
            | {"total": self.memory.total, "needed": case.device.needs(self.memory)},
            "peak_bytes": case.device.needs(self.memory) if case.device.kind == "cpu" else self.memory.total,
            "device_bytes": case.device.memory,
            "fits": self.fits,
            "change": self.change.change.options if self.change else None,
            "seconds": asdict(times) | {"total": asdict(times.total)} if times else None,
            "money": [
                {"price": str(price), "currency": price.currency, "date": price.date, "source": price.source}
                | {"url": price.url, **asdict(price.of(times.total, case.ranks))}
                for price in self.prices
                if times
            ],
        } | ({"calibrated": self.measured.as_dict()} if self.measured else {})

    def lines(self) -> Iterator[str]:
        """For the screen."""
        case, device = self.case, self.case.device
        several = f" x {case.ranks}" if case.ranks > 1 else ""
        yield f"device        {device.name}{several}, {gib(device.memory)}, computing in {case.precision}"
        by = "by formulas" if case.is_known else "traced, as there are no formulas for all of it"
        yield f"memory        {self.memory} ({by})"
        needs = f"{gib(device.needs(self.memory))} of {gib(device.memory)}"
        if self.fits:
            yield f"fit           yes: {needs} are needed, with gaps and what libraries take"
        else:
            yield f"fit           no: {needs} would be needed"
            yield from self._ways_out()
        if self.measured is not None:
            said = device.needs(self.memory) if device.kind == "cpu" else self.memory.total
            yield f"{told(self.measured)} (estimate {gib(said)})"
        yield from self._answering()
        yield from self._time()

    def _ways_out(self) -> Iterator[str]:
        if self.change is None:
            yield "              no change of options alone makes it fit; more devices would have to share it"
            return
        change, needed = self.change.change, self.case.device.needs(self.change.memory)
        same = "the same is learned" if change.same_result else "this changes what is learned"
        yield f"              the cheapest change that fits ({gib(needed)}; {same}):"
        yield from (f"              {line}" for line in change.diff(self.case.cfg))

    def _answering(self) -> Iterator[str]:
        """Keys and values where rows are answered."""
        case, train = self.case, self.case.cfg.train
        if case.shape is None or not (train.do_predict or train.predict_with_generate):
            return
        tokens = case.cfg.data.cutoff_len + case.cfg.generate.max_new_tokens
        rows = train.per_device_eval_batch_size
        size = work.cache_bytes(case.shape, rows, tokens, FORMATS[case.precision].compute)
        yield f"answering     keys and values of {rows} rows of at most {tokens:,} tokens: {gib(size)}"

    def _time(self) -> Iterator[str]:
        if self.times is None:
            yield "time          not known: there is no rate of this device"
            return
        times, case = self.times, self.case
        yield f"time          {durations(times.total)}"
        parts = {
            "starting": times.starting.likely,
            "preparing": times.preparing.likely,
            "training": times.training.likely,
            "evaluating": times.evaluating.likely,
            "saving": times.saving.likely,
        }
        shown = [f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds >= 1]
        yield f"              {', '.join(shown)}"
        for number, price in enumerate(self.prices[: 1 + ALSO]):
            cost = money(price.of(times.total, case.ranks), price.currency)
            yield f"{'' if number else 'money':13} {cost} at {price}"
        if not self.prices:
            lacking = "price=... (of one device and hour) and currency=..."
            if case.cfg.train.price_per_kwh is not None:
                lacking = "watts=..., as what it takes is not known"
            yield f"money         no price is known for it: give {lacking}"
        todo = work_of(case)
        assert todo is not None, "there are times"
        known = history.runs_known(case.device.name, todo.hidden)
        shares = history.shares(case.device.name, case.device.kind, todo.hidden)
        rate = case.device.rate(FORMATS[case.precision].compute)
        why = (
            f"as in {known} finished run{'s' * (known > 1)} here" if known else "as is usual; no run has finished here"
        )
        reached = f"{shares.low:.0%} to {shares.high:.0%} of {rate / 1e12:.3g} TFLOP/s are reached, {why}"
        yield f"assumed       {reached}"


def told(measured: Measured) -> str:
    """What a few real steps took."""
    speed, steps = f"{measured.tokens_per_second:,.0f} tokens a second", measured.steps
    return f"calibrated    {speed} in {steps} step{'s' * (steps > 1)}, memory {gib(measured.peak_bytes)}"


def remembered(cfg: Config, inputs: Inputs, device: Device, measured: Measured) -> None:
    """Keep what share of its rate the device reached, for this estimate and later ones."""
    case = case_of(cfg, inputs, device, ranks=1, precision=precision_on(device, cfg.model.compute_type))
    remember(case, measured.tokens, measured.seconds, tracing=True)


def estimated(
    cfg: Config, inputs: Inputs, device: Device, ranks: int, seconds: float, measured: Measured | None = None
) -> Estimate:
    """The estimate of a run on this kind of device; reading and preparing took so many seconds, a few steps what `measured`
    says."""
    precision = precision_on(device, cfg.model.compute_type)
    case = case_of(cfg, inputs, device, ranks=ranks, precision=precision, prepared_seconds=seconds)
    memory = memory_of(case)
    fits = device.fits(memory)
    return Estimate(
        case,
        memory,
        times_of(case, memory),
        price_of(cfg, device),
        None if fits or not case.is_known else cheapest(case),
        measured,
    )


def about_run(found: Estimate, inputs: Inputs) -> Iterator[str]:
    """What is the same on every device: the model, the rows, the steps."""
    case = found.case
    kind, shape = case.cfg.tuning.finetuning_type, case.shape
    if shape is not None and (how := method(case.cfg, shape, case.precision)) is not None:
        numbers, _ = trained(shape, how)
        yield f"model         {shape.model_type}, {shape.numbers:,} weights; {kind} trains {numbers:,}"
    else:
        yield f"model         {case.config.get('model_type')}; {kind}"
    totals: Totals = count(inputs.prepared, case.division, steps=case.due.total)
    per_epoch = "rows are streamed" if totals.steps_per_epoch is None else f"{totals.steps_per_epoch:,} steps an epoch"
    yield f"data          {totals.samples:,} samples, {totals.tokens:,} tokens, {totals.trained_fraction:.0%} of them learned"
    yield f"steps         {case.due.total:,} of {sized(case.division)}, {per_epoch}; {case.trained.tokens:,.0f} tokens in all"
    rows, tokens = len(case.load.lengths), sum(case.load.lengths)
    yield f"largest       micro-batch {rows} row{'s' * (rows > 1)} of {tokens:,} tokens in all"


def table(cfg: Config, inputs: Inputs, methods: Sequence[str], devices: Sequence[Device], ranks: int) -> Iterator[str]:
    """A line for each method, a column for each device: memory that is needed, time, money."""
    cells = [["", *(f"{each.name} ({gib(each.memory)})" for each in devices)]]
    for name in methods:
        kind, _, way = name.partition("+")
        options: dict[str, Any] = {"finetuning_type": "lora" if kind == "qlora" else kind}
        if kind == "qlora":
            options |= {"quantization_bit": cfg.model.quantization_bit or 4}
        cells.append([name, *(_cell(changed(cfg, options), inputs, each, ranks, way or "ddp") for each in devices)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(cfg: Config, inputs: Inputs, device: Device, ranks: int, way: str) -> str:
    case = case_of(cfg, inputs, device, ranks=ranks, precision=precision_on(device, cfg.model.compute_type))
    memory = memory_of(case, way)
    fits = device.fits(memory)
    parts = [f"{'' if fits else 'no: '}{gib(device.needs(memory))}"]
    if fits and (times := times_of(case, memory)) is not None:
        parts.append(duration(times.total.likely))
        for price in price_of(cfg, device)[:1]:
            parts.append(f"{price.currency} {price.of(times.total, ranks).likely:,.2f}")
    return ", ".join(parts)
