"""The few lines a user reads before the first step and after the last.  Knows a session; changes nothing."""

import shlex
from collections.abc import Iterator

from tunesmith.jobs.folder import CONFIG
from tunesmith.log import note, say, warn
from tunesmith.models.tuning.count import trainable
from tunesmith.train.session import Session
from tunesmith.train.timetable import sized


def before(session: Session) -> None:
    """Say what is about to be trained, where, and for how long."""
    runtime, due = session.runtime, session.due
    where = "the CPU" if runtime.device.type == "cpu" else f"{runtime.world_size} GPU{'s' * (runtime.world_size > 1)}"
    hint = ", no GPU was found" if session.cfg.model.device == "auto" and runtime.device.type == "cpu" else ""
    note("device", f"training on {where} in {runtime.precision.name}{hint}")
    trained, everything = trainable(session.model)
    say(
        f"{session.cfg.tuning.finetuning_type}: {trained:,} of {everything:,} weights are trained ({trained / everything:.2%})"
    )
    epoch = "rows are streamed" if due.per_epoch is None else f"{due.per_epoch:,} steps an epoch"
    say(f"{due.total:,} steps of {sized(session.division)}, {epoch}")


def _best(session: Session) -> Iterator[str]:
    """Why the run ended before its last step, and which model is the final one."""
    best, here = session.best, session.position
    if best is None:
        return
    if session.is_given_up and here.step < session.due.total:
        yield (
            f"Stopped early, after step {here.step:,} of {session.due.total:,}: {here.unimproved} evaluations in a row found no "
            f"better {best.metric}."
        )
    if here.best_value is not None:
        is_final = "; that is the final model" if best.keeps else ""
        yield f"Best {best.metric}: {here.best_value:.6g}, at step {here.best_step:,}{is_final}."


def after(session: Session, stopped: bool) -> None:
    """Say how the run ended and where everything lies."""
    folder, step, total = session.place.folder, session.position.step, session.due.total
    for line in session.feed.lines():
        say(line)
    if stopped:
        warn(
            "stopped",
            f"after step {step} of {total}; saved {folder / f'checkpoint-{step}'}; the same command goes on there",
        )
        return
    for line in _best(session):
        say(line)
    mean = session.position.loss_sum / max(step, 1)
    say(f"Done: {step:,} steps, mean loss {mean:.4f}. The model is in {folder}; its options are in {folder / CONFIG}.")
    if session.cfg.train.plot_loss:
        say(f"Loss picture: {folder / 'training_loss.png'}")
    say(f"Talk to it: tunesmith chat {shlex.quote(str(folder))}")
