"""Where metrics go besides the run's folder: TensorBoard, Weights & Biases and others.  Knows names; imports none itself.

The classes are accelerate's, found through the catalog, one line each there.  What differs between them (which argument
is the project, which the run, where files go) is the table here.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunesmith import catalog, log
from tunesmith.config.written import is_secret

PROJECT = "tunesmith"
"""The project that runs are filed under where the user's environment names none."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a tracker is told of a run.  `folder`: where its files go; `resumed`: the step the run goes on from."""

    name: str
    folder: Path
    resumed: int | None


def _tensorboard(run: Run) -> dict[str, Any]:
    arguments: dict[str, Any] = {"run_name": run.name, "logging_dir": str(run.folder)}
    if run.resumed is not None:
        arguments["purge_step"] = run.resumed + 1  # hides what was logged after the checkpoint
    return arguments


def _wandb(run: Run) -> dict[str, Any]:
    return {"run_name": os.environ.get("WANDB_PROJECT", PROJECT), "name": run.name, "dir": str(run.folder)}


def _mlflow(run: Run) -> dict[str, Any]:
    return {"experiment_name": PROJECT, "run_name": run.name}


def _swanlab(run: Run) -> dict[str, Any]:
    project = os.environ.get("SWANLAB_PROJECT", PROJECT)
    return {"run_name": project, "experiment_name": run.name, "logdir": str(run.folder / "swanlab")}


def _trackio(run: Run) -> dict[str, Any]:
    return {"run_name": os.environ.get("TRACKIO_PROJECT", PROJECT), "name": run.name}


_ARGUMENTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
    "trackio": _trackio,
}
"""Tracker -> the arguments of accelerate's class.  Its `run_name` is the project, but for tensorboard.  A tracker's
package has the tracker's name, and so has the extra that installs it."""


class Tracking:
    """One tracker of a run: a `Tracker` for the run's `Record`.

    A service that stops answering must not end the training it watches: one warning, and nothing more is sent to it.
    """

    def __init__(self, name: str, tracker: Any):
        """`tracker`: an instance of one of accelerate's classes, started."""
        self.name = name
        self._tracker = tracker
        self._works = True

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send a log row, under the names that Transformers gives them: `train/loss`, `eval/loss`."""
        finite = {_grouped(name): value for name, value in metrics.items() if math.isfinite(value)}
        self._try(lambda: self._tracker.log(finite, step=step))

    def close(self) -> None:
        """Send what is left."""
        self._try(self._tracker.finish)

    def _try(self, send: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            send()
        except Exception as problem:
            self._works = False
            log.warn("report_to", f"{self.name} failed and gets nothing more from this run: {problem}")


def check(names: Sequence[str]) -> list[str]:
    """The trackers that `report_to` asks for, none twice.

    Raises OptionError for a name that is none, MissingExtra for one that is not installed.
    """
    chosen = list(dict.fromkeys(_spelled(name) for name in names if name.lower() != "none"))
    for name in chosen:
        if find_spec(name) is None:
            raise log.MissingExtra(f"report_to: {name} is not installed; pip install 'tunesmith[{name}]'")
    return chosen


def start(
    names: Sequence[str],
    *,
    run_name: str,
    logging_dir: Path,
    options: Mapping[str, Any],
    resumed: int | None = None,
) -> list[Tracking]:
    """Start each tracker of `report_to` and tell it the run's options, those that hold secrets left out.

    Files go to `logging_dir`.  Only for rank 0, after the process group has formed.  Raises what `check` does, and
    RunError when a service refuses.
    """
    run = Run(run_name, logging_dir, resumed)
    return [_start(name, run, told(options)) for name in check(names)]


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and those within them, without the ones whose names say that they are secret."""
    return {
        name: without_secrets(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if not is_secret(name)
    }


def told(options: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Options as every tracker takes them: numbers, booleans and text; lists and mappings as JSON."""
    return {
        name: value if isinstance(value, bool | int | float) else log.redacted(_as_text(value))
        for name, value in without_secrets(options).items()
    }


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _start(name: str, run: Run, options: dict[str, Any]) -> Tracking:
    tracker_class = catalog.find("tracker", name)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        tracker = tracker_class(**_ARGUMENTS[name](run))
        tracker.start()
        tracker.store_init_configuration(options)
    except Exception as problem:
        raise log.RunError(f"report_to: {name} did not start: {problem}") from problem
    return Tracking(name, tracker)


def _spelled(name: str) -> str:
    if "://" in name:
        raise log.OptionError(
            f"report_to: '{name}' is an address; write the tracker's name here, and the address into the environment "
            "variable that tracker reads, such as WANDB_BASE_URL or MLFLOW_TRACKING_URI"
        )
    return catalog.check("tracker", name)


def _grouped(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
