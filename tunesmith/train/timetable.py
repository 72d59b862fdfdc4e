"""How many micro-batches a step has, how many steps a run has, and at which of them something is due.  Knows options; imports
no torch."""

import math
from dataclasses import dataclass

from tunesmith.config.schema import Config
from tunesmith.config.train import TrainConfig
from tunesmith.data.batching.division import FEWEST_TOKENS, Division
from tunesmith.log import OptionError
from tunesmith.train.judging import best


def accumulation(train: TrainConfig, ranks: int) -> int:
    """Micro-batches per step, from `global_batch_size` where it is given.  Raises OptionError when that is no multiple."""
    if train.global_batch_size is None:
        return train.gradient_accumulation_steps
    at_once = train.per_device_train_batch_size * ranks
    if train.global_batch_size % at_once:
        raise OptionError(
            f"global_batch_size: {train.global_batch_size} is no multiple of per_device_train_batch_size x processes = "
            f"{train.per_device_train_batch_size} x {ranks}"
        )
    return train.global_batch_size // at_once


def division(cfg: Config, ranks: int, *, padded: bool = True, kind: str = "cpu") -> Division:
    """How the rows of a run fall into its steps.  `padded`: those of a micro-batch are padded to one length; `kind`: cpu or
    cuda.  Raises OptionError as `accumulation` does."""
    train, merged = cfg.train, not padded and "merged_batches" not in cfg.model.disable_speedups
    return Division(
        train.per_device_train_batch_size,
        accumulation(train, ranks),
        ranks,
        seed=train.seed if train.data_seed is None else train.data_seed,
        shuffle=not cfg.data.disable_shuffling,
        way=cfg.data.batching,
        row_tokens=cfg.data.cutoff_len,
        padded=padded,
        merged=FEWEST_TOKENS[kind] if merged else 0,
        whole=train.dataloader_drop_last,
    )


def sized(division: Division) -> str:
    """How large a step is, and what it is made of."""
    times = f"x {division.accumulation} accumulated x {division.ranks} process{'es' * (division.ranks > 1)}"
    if division.way == "token_budget":
        tokens = division.batch_size * division.row_tokens
        return f"about {division.window_rows * division.row_tokens:,} tokens ({tokens:,} a device {times})"
    return f"{division.window_rows} rows ({division.batch_size} a device {times})"


@dataclass(frozen=True, slots=True)
class Timetable:
    """At which steps something is due.  All in optimizer steps; 0: never."""

    total: int
    per_epoch: int | None
    """None: rows are streamed, and nobody knows."""
    logging: int
    saving: int
    evaluating: int
    first: bool
    last: bool = False
    """Whether the last step is evaluated before it is saved, as its checkpoint may be the best."""
    delay: int = 0
    """Steps before which nothing is evaluated."""
    on_start: bool = False
    """Whether is evaluated what training begins with."""

    def logs_at(self, step: int) -> bool:
        return step % self.logging == 0 or step == self.total or (self.first and step == 1)

    def saves_at(self, step: int) -> bool:
        return self.saving > 0 and (step % self.saving == 0 or step == self.total)

    def evaluates_at(self, step: int) -> bool:
        due = self.evaluating > 0 and step % self.evaluating == 0 and step >= self.delay
        return due or (self.last and step == self.total)


def timetable(cfg: TrainConfig, per_epoch: int | None, has_eval_rows: bool) -> Timetable:
    """When things are due in a run of `per_epoch` steps an epoch; fractions of the run become steps, rounded up.  Without
    a known epoch (None), `max_steps` gives the end and nothing is due by epochs."""
    limit = None if cfg.max_steps in (None, -1) else cfg.max_steps
    total = max(1, math.ceil(cfg.num_train_epochs * (per_epoch or 0)) if limit is None else limit)
    saves = {"steps": cfg.save_steps, "epoch": float(per_epoch or 0), "no": 0.0}
    by_best = best.is_wanted(cfg)
    often = cfg.save_steps if by_best and cfg.save_strategy == "steps" else cfg.logging_steps
    evaluates = {"steps": cfg.eval_steps or often, "epoch": float(per_epoch or 0), "no": 0.0}
    unwritten = "steps" if cfg.eval_steps is not None else cfg.save_strategy if by_best else "no"
    strategy = cfg.eval_strategy or unwritten
    return Timetable(
        total=total,
        per_epoch=per_epoch,
        logging=_steps(cfg.logging_steps, total),
        saving=_steps(saves[cfg.save_strategy], total),
        evaluating=_steps(evaluates[strategy], total) if has_eval_rows else 0,
        first=cfg.logging_first_step,
        last=by_best and has_eval_rows,
        delay=math.ceil(cfg.eval_delay * ((per_epoch or 0) if strategy == "epoch" else 1)),
        on_start=cfg.eval_on_start and has_eval_rows,
    )


def _steps(value: float, total: int) -> int:
    return math.ceil(value * total) if value < 1 else int(value)
