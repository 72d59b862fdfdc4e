"""What a run writes down about itself, in its folder.  Knows steps and numbers; knows no tensor and no clock.

    events.jsonl        everything that happened, in order, numbered over all starts of the run; only ever appended to
    trainer_log.jsonl   one line per log row, with the keys that readers of LLaMA-Factory's file know
    trainer_state.json  the same rows as Transformers' Trainer keeps them
    *_results.json      what came out
    run.log             every note, warning and log row, for people

The rows of the logs live in one list that each checkpoint stores.  Going on from a checkpoint puts that list back, so
the logs of a run that was interrupted have the rows of one that was not, each once.
"""

import errno
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from tunesmith import log
from tunesmith.files import write_beside
from tunesmith.jobs.unsaid import resident_bytes

EVENTS = "events.jsonl"
TRAINER_LOG = "trainer_log.jsonl"
TRAINER_STATE = "trainer_state.json"
RUN_LOG = "run.log"

_LOG_KEYS = {"loss": "loss", "learning_rate": "lr", "epoch": "epoch"}
"""A metric's name in the loop -> in `trainer_log.jsonl`.  Losses on evaluation sets keep their names."""

_STATE: dict[str, Any] = {
    "best_global_step": None,
    "best_metric": None,
    "best_model_checkpoint": None,
    "epoch": 0.0,
    "eval_steps": 500,
    "global_step": 0,
    "is_hyper_param_search": False,
    "is_local_process_zero": True,
    "is_world_process_zero": True,
    "log_history": [],
    "logging_steps": 500,
    "max_steps": 0,
    "num_input_tokens_seen": 0,
    "num_train_epochs": 0,
    "save_steps": 500,
    "stateful_callbacks": {},
    "train_batch_size": None,
    "trial_name": None,
    "trial_params": None,
}
"""The keys that Transformers' `TrainerState` takes, and no others: it refuses a file with unknown ones."""


class Tracker(Protocol):
    """Where metrics go besides the run's folder."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Record:
    """A run's folder, open for writing.  Held by rank 0; the others hold a `NoRecord`."""

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        history: list[dict[str, Any]] | None = None,
        trackers: Sequence[Tracker] = (),
    ):
        """Open `folder`, which must exist.  `history`: the rows of the checkpoint that the run goes on from, or an empty
        list; the log is made to hold just these.  None adds to whatever log there is."""
        self.folder = folder
        self.total_steps = total_steps
        self.history = [] if history is None else history
        """One dict per log row: its metrics, `step`, and `seconds` of training so far.  Checkpoints store it."""
        self._trackers = trackers
        self._events = folder / EVENTS
        self._number = _mend(self._events)
        if history is not None:
            self._write_rows()
        self._works = True
        """Whether everything could be written so far; the first line that can't is told of."""
        self._lacks_rows = False
        """Whether the log on disk lacks rows."""
        self._stop_listening = log.listen(self._hear)

    def event(self, kind: str, **data: Any) -> None:
        """Append `{"number": ..., "time": ..., "kind": kind, ...}` to `events.jsonl`.  Numbers start at 1."""
        line = _line({"number": self._number + 1, "time": _now(), "kind": kind, **data})
        if self._try(lambda: _append(self._events, line)):
            self._number += 1

    def log(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
        """Write a log row: `metrics` after `step` optimizer steps and `seconds` of training, over all starts.

        Every metric goes to `trainer_state.json`, the events and the trackers; to `trainer_log.jsonl` go `loss`,
        `learning_rate`, `epoch` and `num_input_tokens_seen`, under that file's names, and `eval_loss` or, with several
        sets, each `eval_NAME_loss`.
        """
        entry = {**metrics, "step": step, "seconds": seconds}
        self.history.append(entry)
        self._lacks_rows = not self._try(self._write_rows if self._lacks_rows else lambda: self._add_row(entry))
        held = resident_bytes()
        self.event(
            "log", step=step, total_steps=self.total_steps, seconds=seconds, metrics=dict(metrics), resident_bytes=held
        )
        shown = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
        self._write_log(f"step {step}/{self.total_steps}: {shown}")
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def results(self, name: str, values: Mapping[str, Any]) -> None:
        """Write `{name}_results.json` (`train`, `eval` or `predict`) and add its values to `all_results.json`."""
        everything = self.folder / "all_results.json"
        write_beside(self.folder / f"{name}_results.json", _pretty(values))
        write_beside(everything, _pretty({**_values(everything), **values}))
        self.event("results", name=name, values=dict(values))

    def add_results(self, name: str, values: Mapping[str, Any]) -> None:
        """Add values to those in `{name}_results.json` and `all_results.json`."""
        self.results(name, {**_values(self.folder / f"{name}_results.json"), **values})

    def save_state(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write `trainer_state.json` into `folder`: the log rows so far and `facts`, by `TrainerState`'s own names
        (`global_step`, `epoch`, `best_metric`, `num_train_epochs`, ...)."""
        assert facts.keys() <= _STATE.keys(), f"TrainerState has no {facts.keys() - _STATE.keys()}"
        rows = [{key: entry[key] for key in sorted(entry) if key != "seconds"} for entry in self.history]
        write_beside(
            folder / TRAINER_STATE, _pretty({**_STATE, "max_steps": self.total_steps, **facts, "log_history": rows})
        )

    def close(self) -> None:
        """Finish the trackers and stop listening."""
        if self._lacks_rows:
            self._try(self._write_rows)
        self._stop_listening()
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, log.TunesmithError):
            self._write_log(f"error: {error}")
        elif isinstance(error, Exception):
            self._write_log(log.redacted("".join(traceback.format_exception(error)).rstrip()))
        self.close()

    def _row(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The line of `trainer_log.jsonl` for a row of the history."""
        step, seconds = entry["step"], entry["seconds"]
        remaining = seconds / step * (self.total_steps - step) if step else 0.0
        row = {"current_steps": step, "total_steps": self.total_steps}
        row |= {name: value for name, value in entry.items() if is_eval_loss(name)}
        row |= {ours: entry[name] for name, ours in _LOG_KEYS.items() if name in entry}
        row |= {
            "percentage": round(100 * step / self.total_steps, 2) if self.total_steps else 100.0,
            "elapsed_time": _clock(seconds),
            "remaining_time": _clock(remaining),
        }
        if (tokens := entry.get("num_input_tokens_seen")) is not None:
            row |= {"throughput": round(tokens / seconds, 2) if seconds else 0.0, "total_tokens": int(tokens)}
        return row

    def _write_rows(self) -> None:
        write_beside(self.folder / TRAINER_LOG, "".join(_line(self._row(entry)) for entry in self.history))

    def _add_row(self, entry: Mapping[str, Any]) -> None:
        _append(self.folder / TRAINER_LOG, _line(self._row(entry)))

    def _try(self, write: Callable[[], None]) -> bool:
        """Write, if that can be done.  Training does not end for a line of a log: the rows are in memory and in checkpoints,
        and the log is written whole once there is room."""
        try:
            write()
        except OSError as problem:
            if self._works:
                self._works = False  # first, as the warning is heard here too
                log.warn(str(self.folder), f"a log can't be written: {problem.strerror}; training goes on without it")
            return False
        return True

    def _hear(self, line: str) -> None:
        self._write_log(line)
        self.event("message", text=line)

    def _write_log(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        self._try(lambda: _append(self.folder / RUN_LOG, line))


class NoRecord(Record):
    """The record of every rank but 0: the same methods, nothing written."""

    def __init__(self) -> None:
        self.history = []

    def event(self, kind: str, **data: Any) -> None:
        pass

    def log(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
        pass

    def results(self, name: str, values: Mapping[str, Any]) -> None:
        pass

    def save_state(self, folder: Path, facts: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass

    def _write_log(self, text: str) -> None:
        pass


def speed(name: str, *, seconds: float, samples: int, steps: int) -> dict[str, float]:
    """`{name}_runtime`, `_samples_per_second` and `_steps_per_second`, rounded as the Trainer does."""
    return {
        f"{name}_runtime": round(seconds, 4),
        f"{name}_samples_per_second": round(samples / seconds, 3) if seconds else 0.0,
        f"{name}_steps_per_second": round(steps / seconds, 3) if seconds else 0.0,
    }


def is_eval_loss(name: str) -> bool:
    """Whether a metric is the loss on an evaluation set: `eval_loss`, or `eval_NAME_loss` when there are several."""
    return name.startswith("eval_") and name.endswith("_loss")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a `.jsonl` file that may still be written to; none when there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _values(path: Path) -> dict[str, Any]:
    """What a file of results holds; nothing when there is none."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return values


def _mend(events: Path) -> int:
    """Cut off what a killed process or machine left of its last lines; the number of the last whole event."""
    if not events.exists():
        return 0
    content = events.read_bytes()
    end = content.rfind(b"\n") + 1
    number = 0
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        try:
            number = int(json.loads(content[start:end])["number"])
            break
        except (ValueError, KeyError, TypeError):
            end = start
    if end < len(content):
        os.truncate(events, end)
    return number


def _append(path: Path, text: str) -> None:
    """Add `text` to a file in one write, so that a reader and a kill find it whole or not at all.  Raises OSError when the
    disk is full, the file as it was."""
    with open(path, "ab", buffering=0) as file:
        before, data = file.tell(), text.encode()
        if file.write(data) != len(data):
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(_plain(data), ensure_ascii=False) + "\n"


def _pretty(data: Mapping[str, Any]) -> str:
    return json.dumps(_plain(data), indent=4, sort_keys=True, ensure_ascii=False) + "\n"


def _plain(data: Any) -> Any:
    """`data` with null for the numbers that JSON cannot hold, and text for paths."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return str(data) if isinstance(data, Path) else data


def _clock(seconds: float) -> str:
    """`0:01:20`, or `1 day, 0:00:00`, as the readers of `trainer_log.jsonl` expect it."""
    return str(timedelta(seconds=int(seconds)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
