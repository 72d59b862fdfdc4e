"""What happens between steps: count, log, evaluate, save, stop.  Knows when; a session knows how."""

import time
from typing import Protocol

from tunesmith.log import RunError
from tunesmith.train.judging.best import Best
from tunesmith.train.loop import Step
from tunesmith.train.position import Position
from tunesmith.train.stop import Interrupted
from tunesmith.train.timetable import Timetable


class Between(Protocol):
    """What can be done between steps."""

    @property
    def epoch(self) -> float: ...

    def advance(self, step: Step) -> None: ...
    def log(self, step: Step, loss: float) -> None: ...
    def evaluate(self) -> dict[str, float]: ...
    def save(self) -> None: ...


class Hooks:
    """Called after every step; keeps the run's place in `position`."""

    def __init__(
        self,
        timetable: Timetable,
        position: Position,
        between: Between,
        *,
        loss_limit: float | None,
        best: Best | None = None,
    ):
        self.timetable, self.position, self.between, self.loss_limit = timetable, position, between, loss_limit
        self.best = best
        self.stopped: int | None = None
        """The signal that stopped the run before all was done that is done between steps."""
        self._clock = time.perf_counter()

    def after(self, step: Step) -> bool:
        """Count the step and do what is due; True when the run is over."""
        here, due = self.position, self.timetable
        self._count(step)
        self.between.advance(step)
        if due.logs_at(here.step):
            loss = here.logged_loss_sum / here.logged_steps
            here.logged_loss_sum, here.logged_steps = 0.0, 0
            self.between.log(step, loss)
        if self.loss_limit is not None and step.loss > self.loss_limit:
            raise RunError(f"step {here.step}: the loss is {step.loss:.6g}, above loss_limit {self.loss_limit:.6g}")
        here.evaluation, here.is_unevaluated = {}, due.evaluates_at(here.step)
        stop = self._evaluate(step.stop)
        gives_up = self._save_if_due(stop)
        over = here.step >= due.total or gives_up
        self.stopped = stop if not over or here.is_unevaluated else None
        return bool(stop) or over

    def catch_up(self) -> bool:
        """Evaluate, and save again, where a run goes on that was stopped before it could; True when it is stopped again."""
        if self.position.is_unevaluated:
            self.stopped = self._evaluate(None)
            if not self.stopped:
                self._save_if_due(None)
        return bool(self.stopped)

    def start(self) -> bool:
        """Evaluate what the run begins with, where that is asked for; True when it is stopped meanwhile."""
        if self.timetable.on_start and self.position.step == 0:
            try:
                self.between.evaluate()
            except Interrupted as interrupted:
                self.stopped = interrupted.signum
            self._clock = time.perf_counter()
        return bool(self.stopped)

    def _evaluate(self, stop: int | None) -> int | None:
        """Evaluate if that is due and nobody has been asked to stop; returns the signal that has come by then."""
        if not self.position.is_unevaluated or stop:
            return stop
        try:
            self.position.evaluation = self.between.evaluate()
        except Interrupted as interrupted:
            return interrupted.signum
        self.position.is_unevaluated = False
        return None

    def _save_if_due(self, stop: int | None) -> bool:
        """Save when that is due, or the last chance; returns whether the run ends as evaluation finds nothing better."""
        keeps, gives_up = self._compare()
        if self.timetable.saves_at(self.position.step) or stop or keeps or (gives_up and self.timetable.saving):
            self.between.save()
        self._clock = time.perf_counter()  # what was done between steps is no training time
        return gives_up

    def _compare(self) -> tuple[bool, bool]:
        """Whether this step's checkpoint is the best so far and kept for it, and whether the run is to end."""
        if self.best is None or not self.position.evaluation:
            return False, False
        is_best = self.best.note(self.position, self.between.epoch)
        return is_best and self.best.keeps, self.best.is_given_up(self.position)

    def _count(self, step: Step) -> None:
        here, now = self.position, time.perf_counter()
        here.step += 1
        here.seconds += now - self._clock
        here.tokens += step.tokens
        here.padded_tokens += step.padded_tokens
        here.loss_tokens += step.loss_tokens
        here.rows += step.rows
        here.loss_sum += step.loss
        here.logged_loss_sum += step.loss
        here.logged_steps += 1
