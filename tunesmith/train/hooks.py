"""What happens between steps: count, log, evaluate, save, stop.  Knows when; a session knows how."""

import math
import time
from dataclasses import dataclass
from typing import Protocol

from tunesmith.config.train import TrainConfig
from tunesmith.log import RunError
from tunesmith.train.checkpoint import Position
from tunesmith.train.loop import Step


@dataclass(frozen=True, slots=True)
class Timetable:
    """At which steps something is due.  All in optimizer steps; 0: never."""

    total: int
    per_epoch: int
    logging: int
    saving: int
    evaluating: int
    first: bool

    def logs_at(self, step: int) -> bool:
        return step % self.logging == 0 or step == self.total or (self.first and step == 1)

    def saves_at(self, step: int) -> bool:
        return self.saving > 0 and (step % self.saving == 0 or step == self.total)

    def evaluates_at(self, step: int) -> bool:
        return self.evaluating > 0 and step % self.evaluating == 0


def timetable(cfg: TrainConfig, per_epoch: int, has_eval_rows: bool) -> Timetable:
    """When things are due in a run of `per_epoch` steps an epoch; fractions of the run become steps, rounded up."""
    limit = None if cfg.max_steps in (None, -1) else cfg.max_steps
    total = max(1, math.ceil(cfg.num_train_epochs * per_epoch) if limit is None else limit)
    saves = {"steps": cfg.save_steps, "epoch": float(per_epoch), "no": 0.0}
    evaluates = {"steps": cfg.eval_steps or cfg.logging_steps, "epoch": float(per_epoch), "no": 0.0}
    strategy = cfg.eval_strategy or ("no" if cfg.eval_steps is None else "steps")
    return Timetable(
        total=total,
        per_epoch=per_epoch,
        logging=_steps(cfg.logging_steps, total),
        saving=_steps(saves[cfg.save_strategy], total),
        evaluating=_steps(evaluates[strategy], total) if has_eval_rows else 0,
        first=cfg.logging_first_step,
    )


def _steps(value: float, total: int) -> int:
    return math.ceil(value * total) if value < 1 else int(value)


class Between(Protocol):
    """What can be done between steps."""

    def advance(self, step: Step) -> None: ...
    def log(self, step: Step, loss: float) -> None: ...
    def evaluate(self) -> dict[str, float]: ...
    def save(self) -> None: ...


class Hooks:
    """Called after every step; keeps the run's place in `position`."""

    def __init__(self, timetable: Timetable, position: Position, between: Between, *, loss_limit: float | None):
        self.timetable, self.position, self.between, self.loss_limit = timetable, position, between, loss_limit
        self.stopped = False
        """True when somebody stopped the run before its last step."""
        self.evaluation: dict[str, float] = {}
        """The last evaluation's results, if it was made at the last step."""
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
        self.evaluation = self.between.evaluate() if due.evaluates_at(here.step) else {}
        if due.saves_at(here.step) or step.stop:
            self.between.save()
        self._clock = time.perf_counter()  # what was done between steps is no training time
        over = here.step >= due.total
        self.stopped = step.stop and not over
        return step.stop or over

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
