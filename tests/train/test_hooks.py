"""When things are due, and what is counted."""

import signal

import pytest

from tunesmith.config.train import TrainConfig
from tunesmith.log import RunError
from tunesmith.train.hooks import Hooks
from tunesmith.train.loop import Step
from tunesmith.train.position import Position
from tunesmith.train.stop import Interrupted
from tunesmith.train.timetable import timetable


class Notes:
    """Writes down what it was asked to do, with the step it was asked at."""

    def __init__(self, position: Position):
        self.position, self.done = position, []
        self.signum: int | None = None
        """The signal that comes in an evaluation."""

    def advance(self, step: Step) -> None:
        pass

    def log(self, step: Step, loss: float) -> None:
        self.done.append((self.position.step, "log", loss))

    def evaluate(self) -> dict[str, float]:
        if self.signum is not None:
            raise Interrupted(self.signum)
        self.done.append((self.position.step, "evaluate"))
        return {"eval_loss": 1.0}

    def save(self) -> None:
        self.done.append((self.position.step, "save"))


def step(loss: float = 2.0, stop: int | None = None) -> Step:
    return Step(loss, 1.0, 1e-3, tokens=10, padded_tokens=16, loss_tokens=4, rows=2, stop=stop)


def hooks(cfg: TrainConfig, per_epoch: int, has_eval_rows: bool = False, **options: float) -> tuple[Hooks, Notes]:
    position = Position()
    notes = Notes(position)
    return Hooks(timetable(cfg, per_epoch, has_eval_rows), position, notes, loss_limit=options.get("limit")), notes


def test_epochs_may_be_fractions_and_max_steps_wins() -> None:
    assert timetable(TrainConfig(num_train_epochs=2.5), 7, False).total == 18
    assert timetable(TrainConfig(num_train_epochs=2.5, max_steps=4), 7, False).total == 4
    assert timetable(TrainConfig(num_train_epochs=2.5, max_steps=-1), 7, False).total == 18


def test_fractions_of_the_run_are_rounded_up_to_steps() -> None:
    due = timetable(TrainConfig(max_steps=25, logging_steps=0.1, save_steps=0.5), 7, False)
    assert (due.logging, due.saving) == (3, 13)


def test_evaluation_needs_rows_and_a_wish() -> None:
    assert timetable(TrainConfig(eval_steps=5), 7, False).evaluating == 0
    assert timetable(TrainConfig(eval_steps=5), 7, True).evaluating == 5
    assert timetable(TrainConfig(eval_strategy="epoch"), 7, True).evaluating == 7
    assert timetable(TrainConfig(), 7, True).evaluating == 0


def test_each_thing_happens_when_it_is_due_and_the_last_step_logs_and_saves() -> None:
    run, notes = hooks(TrainConfig(max_steps=5, logging_steps=2, save_steps=3, eval_steps=4), 10, has_eval_rows=True)
    assert [run.after(step(float(n))) for n in range(1, 6)] == [False, False, False, False, True]
    assert notes.done == [
        (2, "log", 1.5),
        (3, "save"),
        (4, "log", 3.5),
        (4, "evaluate"),
        (5, "log", 5.0),
        (5, "save"),
    ]
    assert not run.stopped
    assert (run.position.tokens, run.position.padded_tokens, run.position.loss_tokens, run.position.rows) == (
        50,
        80,
        20,
        10,
    )


def test_a_stop_saves_at_once_unless_the_run_is_over_anyway() -> None:
    run, notes = hooks(TrainConfig(max_steps=5, logging_steps=10), 10)
    assert run.after(step(stop=signal.SIGTERM))
    assert run.stopped == signal.SIGTERM
    assert notes.done == [(1, "save")]
    run, notes = hooks(TrainConfig(max_steps=1), 10)
    assert run.after(step(stop=signal.SIGTERM))
    assert not run.stopped


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("in_evaluation", [False, True])
def test_a_stop_leaves_an_evaluation_that_is_due_for_later(last: bool, in_evaluation: bool) -> None:
    options = TrainConfig(max_steps=1 if last else 5, logging_steps=10, eval_steps=1, save_steps=10)
    run, notes = hooks(options, 10, has_eval_rows=True)
    notes.signum = signal.SIGINT if in_evaluation else None
    assert run.after(step(stop=None if in_evaluation else signal.SIGINT))
    assert run.stopped == signal.SIGINT and run.position.is_unevaluated
    assert [what for _, what, *_ in notes.done] == (["log", "save"] if last else ["save"])
    notes.done.clear()
    notes.signum = signal.SIGTERM
    assert run.catch_up() and run.stopped == signal.SIGTERM and not notes.done
    notes.signum = None
    assert not run.catch_up() and not run.stopped and not run.position.is_unevaluated
    assert notes.done == [(1, "evaluate"), (1, "save")] if last else [(1, "evaluate")]
    assert not run.catch_up()


def test_a_loss_above_the_limit_is_an_error() -> None:
    run, _ = hooks(TrainConfig(max_steps=5), 10, limit=3.0)
    run.after(step(2.9))
    with pytest.raises(RunError, match=r"step 2: the loss is 3.1, above loss_limit 3"):
        run.after(step(3.1))
