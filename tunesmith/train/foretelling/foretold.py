"""A run's estimate beside what it took: said before the first step and after the last, and kept in `run.json`.  Knows a session;
changes nothing in it."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tunesmith.estimate import history
from tunesmith.estimate.free import most_resident
from tunesmith.estimate.memory import Memory, gib
from tunesmith.estimate.money import Price
from tunesmith.estimate.words import duration, durations, money
from tunesmith.estimate.work import Range
from tunesmith.log import say, warn
from tunesmith.models.weights import reason
from tunesmith.train.foretelling.costs import price_of
from tunesmith.train.foretelling.estimated import Case, Times, case_of, times_of, work_of
from tunesmith.train.foretelling.machine import here
from tunesmith.train.session import Session

SHORTEST_SECONDS = 10.0
"""Runs that trained no longer than this tell nothing of later ones."""

WORTH_TRACING_SECONDS = 300.0
"""Runs that take at least this have a step traced where there are no formulas, which takes half a minute at the most."""


@dataclass(frozen=True, slots=True)
class Foretold:
    """What was expected of a run when it began.  `first`: the step that it had made by then."""

    case: Case
    memory: Memory
    resident: int
    """Bytes of the whole process, or of its GPU memory, at the most."""
    seconds: Range | None
    price: Price | None
    began: float
    first: int

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        found: dict[str, Any] = {"steps": self.case.due.total, "peak_bytes": self.resident}
        found["memory_bytes"] = asdict(self.memory)
        if self.seconds is not None:
            found["seconds"] = asdict(self.seconds)
            if self.price is not None:
                cost = self.price.of(self.seconds, self.case.ranks)
                found["money"] = {"price": str(self.price), "currency": self.price.currency, **asdict(cost)}
        return found


def foretell(session: Session, began: float) -> Foretold:
    """What the run is expected to take, from its beginning at `began` by time.perf_counter; said in one line."""
    cfg, runtime = session.cfg, session.runtime
    device = here(cfg.model, runtime.precision.autocast or runtime.precision.weights)
    case = case_of(cfg, session.inputs, device, ranks=runtime.world_size, precision=runtime.precision.name)
    times, why = _times(case, session)
    left = 1 - session.position.step / max(session.due.total, 1)
    spent = time.perf_counter() - began
    seconds = None
    if times is not None:
        ahead = (times.training + times.evaluating + times.saving).times(max(left, 0.0))
        seconds = ahead + Range(spent, spent, spent)
    price = next(iter(price_of(cfg, device)), None)
    if price is None and cfg.train.price_per_kwh is not None:
        warn("watts", f"what {device.name} takes is not known, so no electricity is reckoned; write watts")
    resident = device.needs(session.memory) if device.kind == "cpu" else session.memory.total
    found = Foretold(case, session.memory, resident, seconds, price, began, session.position.step)
    if seconds is not None:
        cost = f"; {money(price.of(seconds, case.ranks), price.currency)} at {price}" if price else ""
        say(f"estimate: {durations(seconds)} for {session.due.total - session.position.step:,} steps{cost}")
    else:
        say(f"estimate: no time for {session.due.total - session.position.step:,} steps: {why}")
    return found


def _times(case: Case, session: Session) -> tuple[Times | None, str]:
    """How long the run takes, by formulas, or by a traced step where that is little beside the run; or why nobody knows."""
    rate = case.device.rate(case.way.formats.compute)
    if not rate:
        return None, f"the rate of {case.device.name} is not known"
    if (times := times_of(case, session.memory, tracing=False)) is not None:
        return times, ""
    kind = case.config.get("model_type", "")
    weights = sum(weight.numel() for weight in session.model.parameters())
    least = 4.0 * weights * case.trained.tokens / case.ranks / rate
    if least < WORTH_TRACING_SECONDS:
        return None, f"there are no formulas for {kind}, and a run this short is not worth tracing a step"
    try:
        return times_of(case, session.memory), ""
    except Exception as problem:  # an estimate is no reason to end a run
        return None, f"a step of {kind} cannot be traced: {reason(problem)}"


def fact(session: Session, foretold: Foretold) -> dict[str, Any]:
    """What the run took, said beside the estimate, and remembered for estimates to come."""
    seconds = time.perf_counter() - foretold.began
    here_now = session.position
    peak = peak_bytes(session)
    speed = here_now.tokens / here_now.seconds if here_now.seconds else 0.0
    found: dict[str, Any] = {"steps": here_now.step, "peak_bytes": peak, "seconds": round(seconds, 3)}
    found |= {"tokens_per_second": round(speed, 2), "training_seconds": round(here_now.seconds, 3)}
    parts = [f"memory {gib(peak)} (estimate {gib(foretold.resident)})"]
    likely = "" if foretold.seconds is None else f" (estimate {duration(foretold.seconds.likely)})"
    parts += [f"time {duration(seconds)}{likely}", f"{speed:,.0f} tokens a second"]
    if foretold.price is not None:
        price, ranks = foretold.price, foretold.case.ranks
        paid = price.of(Range(seconds, seconds, seconds), ranks).likely
        said = "" if foretold.seconds is None else f" (estimate {price.of(foretold.seconds, ranks).likely:,.2f})"
        parts.append(f"{price.currency} {paid:,.2f}{said}")
        found["money"] = {"currency": price.currency, "paid": round(paid, 4)}
    say(f"Took: {', '.join(parts)}.")
    _remember(session, foretold)
    return found


def peak_bytes(session: Session) -> int:
    """The most that the process held: of its GPU, what torch gave to tensors; of a CPU, all that was resident."""
    if session.runtime.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(session.runtime.device))
    return most_resident()


def _remember(session: Session, foretold: Foretold) -> None:
    """What share of the device's rate the run reached."""
    if session.position.seconds >= SHORTEST_SECONDS:
        traced = foretold.seconds is not None  # by then at no cost
        remember(foretold.case, session.position.tokens, session.position.seconds, tracing=traced)


def remember(case: Case, tokens: int, seconds: float, *, tracing: bool = False) -> None:
    """What share of its rate a device reaches that trains so many tokens of the run, of all devices, in so many seconds."""
    rate = case.device.rate(case.way.formats.compute)
    if case.cfg.data.disable_cache or not rate or not case.trained.tokens:
        return
    if (todo := work_of(case, tracing=tracing)) is not None:
        reached = todo.training * tokens / case.trained.tokens / seconds
        history.remember(case.device.name, todo.hidden, reached / rate)
