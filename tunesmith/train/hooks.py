"""What happens between steps: count, log, evaluate, save, stop.  Knows when; a session knows how."""

import time
from typing import Protocol

from tunesmith.log import RunError
from tunesmith.train.best import Best
from tunesmith.train.loop import Step
from tunesmith.train.position import Position
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
        self.stopped = False
        """True when somebody stopped the run before its last step."""
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
        here.evaluation = self.between.evaluate() if due.evaluates_at(here.step) else {}
        keeps, gives_up = self._compare()
        if due.saves_at(here.step) or step.stop or keeps or (gives_up and due.saving):
            self.between.save()
        self._clock = time.perf_counter()  # what was done between steps is no training time
        over = here.step >= due.total or gives_up
        self.stopped = step.stop and not over
        return step.stop or over

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
