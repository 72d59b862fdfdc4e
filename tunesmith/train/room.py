"""What checkpoints take on the disk, whether there is room for them, and what is said when there was none.  Knows bytes and
folders; knows not how a checkpoint is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from tunesmith import files
from tunesmith.jobs import checkpoints
from tunesmith.log import RunError, warn
from tunesmith.train.timetable import Timetable


def checkpoint_bytes(model: nn.Module, optimizer_bytes: int, tokenizer_bytes: int) -> int:
    """About what one takes: the trained weights as they are, the same as others load them, what the optimizer keeps, and the
    tokenizer.  A model that is trained without adapters is written whole."""
    weights = list(model.parameters())
    trained = sum(weight.nbytes for weight in weights if weight.requires_grad)
    has_adapter = any(".lora_" in name for name, _ in model.named_parameters())
    published = trained if has_adapter else sum(weight.nbytes for weight in weights)
    return trained + published + optimizer_bytes + tokenizer_bytes


def warn_of_too_little(
    folder: Path, size: int, due: Timetable, done: int, limit: int | None, *, keeps_best: bool = False
) -> None:
    """Warn when the checkpoints that are still to be saved, as many as are kept at once, will not fit beside those that are
    there.  A new one is written before the oldest is removed."""
    planned = sum(due.saves_at(step) for step in range(done + 1, due.total + 1))
    if limit is not None:
        planned = min(planned, max(1, limit + keeps_best + 1 - len(checkpoints.every(folder))))
    needed, free = planned * size, files.free_bytes(folder)
    if needed > free:
        warn(
            "save_steps",
            f"{planned} checkpoint{'s' * (planned > 1)} of about {size:,} bytes will not fit into {folder}, where {free:,} bytes "
            "are free; a save_total_limit keeps fewer",
        )


@contextmanager
def told(step: int, folder: Path, size: int) -> Iterator[None]:
    """Raise RunError for a disk that fails or is full while something is saved: what it needed, what there was, and where
    the run can go on."""
    try:
        yield
    except Exception as problem:
        if not isinstance(problem, OSError) and not files.is_full(problem):
            raise
        newest, free = checkpoints.newest_whole(folder), files.free_bytes(folder)
        kept = f"{newest} is whole" if newest else "no checkpoint was saved yet"
        raise RunError(
            f"step {step}: {folder} can't be written: {files.reason(problem)}; about {size:,} bytes were needed, {free:,} are free; {kept}; the "
            "same command goes on once there is room"
        ) from problem
