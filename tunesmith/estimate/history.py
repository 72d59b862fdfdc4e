"""What share of a device's highest rate finished runs reached, for the estimates of later ones.  Knows one file; knows no
model."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tunesmith.estimate.work import Range

VARIABLE = "TUNESMITH_CACHE"
NAME = "rates.jsonl"

UNKNOWN = {"cpu": Range(0.15, 0.45, 0.9), "cuda": Range(0.15, 0.35, 0.55)}
"""Shares of the highest rate where no run has finished: what training reaches is a third of it or so, small models less."""

NEAR = 2.0
"""How many times wider or narrower a model may be for its runs to tell of another."""

AROUND = (0.8, 1.25)
"""What runs of one kind part from one another."""

LATEST = 20


@dataclass(frozen=True, slots=True)
class _Run:
    device: str
    hidden: int
    share: float


def shares(device: str, kind: str, hidden: int) -> Range:
    """From finished runs of models of about this width on this device, else from what is usual."""
    near = [run.share for run in _near(device, hidden)]
    if not near:
        return UNKNOWN[kind]
    return Range(min(near) * AROUND[0], median(near), max(near) * AROUND[1])


def runs_known(device: str, hidden: int) -> int:
    """How many finished runs an estimate rests on."""
    return len(_near(device, hidden))


def _near(device: str, hidden: int) -> list[_Run]:
    like = [run for run in _runs() if run.device == device and hidden / NEAR <= run.hidden <= hidden * NEAR]
    return like[-LATEST:]


def remember(device: str, hidden: int, share: float) -> None:
    """Add what a run reached; a disk that is full or not writable is no matter."""
    line = json.dumps({"device": device, "hidden": hidden, "share": float(f"{share:.4g}")}) + "\n"
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        with _file().open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError:
        pass


def _file() -> Path:
    return Path(os.environ.get(VARIABLE) or "~/.cache/tunesmith").expanduser() / NAME


def _runs() -> list[_Run]:
    try:
        lines = _file().read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            run = json.loads(line)
            found.append(_Run(str(run["device"]), int(run["hidden"]), float(run["share"])))
        except (ValueError, KeyError, TypeError):  # half a line that a killed process left
            continue
    return found
