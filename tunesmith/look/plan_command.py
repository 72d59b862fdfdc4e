"""`tunesmith plan`: everything that a run needs is checked, its data is read, and what it would do is told.  Loads no weights
and writes nothing."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from tunesmith.config.load import Loaded
from tunesmith.jobs import checkpoints
from tunesmith.jobs import folder as runs
from tunesmith.log import OptionError, say
from tunesmith.look import screen
from tunesmith.look.estimate_lines import estimated
from tunesmith.look.plan import due_in, processes_of, totals_of
from tunesmith.look.rows import Rows, titled
from tunesmith.models import skeleton
from tunesmith.models.load import attention_for
from tunesmith.models.positions import check_reach
from tunesmith.models.precision import allow_tf32, resolve_compute_type
from tunesmith.optim import build, schedules
from tunesmith.train.foretelling.machine import here
from tunesmith.train.inputs import Inputs, read_inputs
from tunesmith.train.judging.best import best_of
from tunesmith.train.run import show_first

ROWS_SHOWN = 1


def plan(loaded: Loaded) -> int:
    """Tell what a run with these options would do; returns the exit code.  Raises TunesmithError for what would stop it."""
    cfg = loaded.config
    device = _device(cfg.model.device)
    precision = resolve_compute_type(cfg.model.compute_type, device)
    if cfg.model.tf32:
        allow_tf32(device)
    inputs = read_inputs(loaded, keep=False)
    attention = attention_for(inputs.source, cfg.model, dtype=precision.autocast or precision.weights, device=device)
    if cfg.train.do_train:
        skeleton.check_targets(inputs.source, cfg.model, cfg.tuning)
        skeleton.check_changes(inputs.source, cfg.model, cfg.data.cutoff_len)
        if cfg.model.rope_scaling is None:
            check_reach(skeleton.skeleton(inputs.source, cfg.model), inputs.prepared.longest)
        _check_steps(loaded, inputs)
    totals = totals_of(loaded, inputs)
    for line in [*inputs.prepared.report.lines(), *totals.lines()]:
        say(line)
    if len(inputs.prepared.train):
        screen.show(titled(Rows(loaded, inputs).first(ROWS_SHOWN)), ids=False, whole=False)
    if cfg.train.debug:
        show_first(inputs)
    for line in _course(loaded, inputs):
        say(line)
    say(f"device        {device.type}, computing in {precision.name}, attention by {attention}")
    _estimate(loaded, inputs)
    say("Everything needed is there; nothing was loaded or written.")
    return 0


def _check_steps(loaded: Loaded, inputs: Inputs) -> None:
    """What optimizer and schedule would refuse or warn of, found on a weight of no consequence."""
    cfg = loaded.config.optim
    build.check(cfg)
    schedules.build(torch.optim.SGD([torch.zeros(1)], lr=cfg.learning_rate), cfg, due_in(loaded, inputs).total)


def _estimate(loaded: Loaded, inputs: Inputs) -> None:
    """What a step takes of memory, and the run of time and money: the one place where a plan tells it."""
    if len(inputs.prepared.train):
        found = estimated(loaded.config, inputs, here(loaded.config.model), processes_of(loaded), 0.0)
        for line in islice(found.lines(), 1, None):  # the device was told
            say(line)


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise OptionError("device: cuda was asked for, and torch finds no GPU here")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _course(loaded: Loaded, inputs: Inputs) -> Iterator[str]:
    """When the run would log, save and evaluate, and where it would write."""
    cfg = loaded.config
    due = due_in(loaded, inputs)
    yield f"logs          every {_steps(due.logging)}"
    saved = sum(due.saves_at(step) for step in range(1, due.total + 1))
    checkpoints_too = f", checkpoints every {_steps(due.saving)}: {saved:,}" if due.saving else ""
    yield f"saves         the model at the end{checkpoints_too}"
    sets = list(inputs.prepared.evals)
    if sets:
        how_often = f"every {_steps(due.evaluating)}" if due.evaluating else "at the end"
        how_often += f", from step {due.delay:,} on" if due.evaluating and due.delay > due.evaluating else ""
        how_often += ", and before the first step" if due.on_start else ""
        yield f"evaluates     {how_often}: {', '.join(cfg.train.metrics)}"
    best = best_of(cfg.train, sets)
    if best is not None:
        direction = "highest" if best.greater else "lowest"
        ends = "" if best.patience is None else f"; ends after {best.patience:,} evaluations without a better one"
        yield f"best          the {direction} {best.metric}{' is the final model' if best.keeps else ''}{ends}"
    folder = Path(cfg.train.output_dir).expanduser() if cfg.train.output_dir else runs.default_folder(cfg)
    newest = next(iter(reversed(checkpoints.every(folder))), None)
    goes_on = f", going on from {newest.name}" if newest and not cfg.train.overwrite_output_dir else ""
    yield f"writes to     {folder}{goes_on}"


def _steps(count: int) -> str:
    return "step" if count == 1 else f"{count:,} steps"
