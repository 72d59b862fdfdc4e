"""A few real steps of a run, for its estimate: how fast they are and what they hold.  Knows a session; keeps nothing that it
writes."""

import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.config.schema import Config
from tunesmith.log import RunError, muted
from tunesmith.train.foretelling.foretold import peak_bytes
from tunesmith.train.inputs import Inputs, Place
from tunesmith.train.loop import Step
from tunesmith.train.run import fit
from tunesmith.train.runtime import Runtime
from tunesmith.train.session import Session
from tunesmith.train.stop import Stops

STEPS = 4
"""The first is not timed: what is made once is made there."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the steps behind the first took on one device."""

    steps: int
    tokens: int
    seconds: float
    peak_bytes: int
    """Of GPU memory, or of the whole process on a CPU."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "steps": self.steps,
            "tokens_per_second": round(self.tokens_per_second, 2),
            "peak_bytes": self.peak_bytes,
        }


class _Timed(Session):
    """A session that notes after each step how far it has come."""

    def __init__(self, cfg: Config, inputs: Inputs, runtime: Runtime, place: Place):
        super().__init__(cfg, inputs, runtime, place)
        self.marks: list[tuple[int, float]] = []

    def advance(self, step: Step) -> None:
        super().advance(step)
        self.marks.append((self.position.tokens, self.position.seconds))


def calibrate(cfg: Config, inputs: Inputs) -> Measured:
    """Train STEPS steps in this process, on one device, in a folder that is gone afterwards.  Raises what training raises."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        short = _short(cfg, folder)
        runtime = Runtime(short.train, short.model)
        if runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(runtime.device)
        # The way there is no result.
        with (
            redirect_stdout(sys.stderr),
            muted(),
            _Timed(short, inputs, runtime, Place(Path(folder), None, None)) as session,
        ):
            fit(session, Stops())
            peak = peak_bytes(session)
        runtime.close()
    (first_tokens, first_seconds), (tokens, seconds) = session.marks[0], session.marks[-1]
    if len(session.marks) < 2 or seconds <= first_seconds:
        raise RunError("--calibrate: there are too few rows for two steps")
    return Measured(len(session.marks) - 1, tokens - first_tokens, seconds - first_seconds, peak)


def _short(cfg: Config, folder: str) -> Config:
    """The same options for a few steps, with nothing done between them."""
    train = cfg.train.model_copy(
        update={
            "output_dir": folder, "max_steps": STEPS, "save_strategy": "no", "eval_strategy": "no", "eval_steps": None,
            "save_best_model": False, "early_stopping_steps": None, "report_to": ["none"], "logging_dir": None,
            "logging_steps": STEPS + 1.0, "nproc_per_node": None, "disable_tqdm": True,
        }
    )  # fmt: skip
    return cfg.model_copy(update={"train": train})
