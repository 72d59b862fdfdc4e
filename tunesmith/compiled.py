"""Functions of tensors that torch.compile may make one pass of, where that earns more time than it costs.  Knows functions
and devices; knows no model and no run.

A compiled function rounds less often, so its bits are others: whether a run compiles depends on its plan alone, never on a
clock, and a run that goes on from a checkpoint does as it did before.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from tunesmith.log import note

COST_SECONDS = {"cpu": 35.0, "cuda": 25.0}
"""What compiling costs at the first start of a run.  CPU: measured on 2 cores, everything together, nothing cached."""

EARNED_SECONDS = {"cpu": 1.0e-9, "cuda": 5e-12}
"""What is saved per element and pass through forward and backward, on one core or device.  CPU: the least of three
measured kinds (norms 3.2e-9, gates 1.4e-9, probabilities 0.9e-9) rounded; CUDA: by arithmetic, 16 bytes less to read and
write at 3 TB/s."""

Function = TypeVar("Function", bound=Callable[..., Any])

_compiling = False


def compilable(function: Function) -> Function:
    """The function, which is compiled at its first call after `switch_on`.  It takes tensors and numbers, has no side
    effects, and leaves what it takes alone."""
    made: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if not _compiling:
            return function(*arguments)
        if not made:
            made.append(torch.compile(function, dynamic=True, fullgraph=True))
        return made[0](*arguments)

    return call  # type: ignore[return-value]


def earns(elements: float, device: torch.device) -> float:
    """Seconds that compiling saves a run that passes over `elements` elements in all."""
    per_core = EARNED_SECONDS[device.type] * elements
    return per_core / torch.get_num_threads() if device.type == "cpu" else per_core


def switch_on(device: torch.device) -> bool:
    """Compile from now on; False, and a note, where this machine lacks what it takes."""
    global _compiling
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache()))
    try:
        torch.compile(_tried, dynamic=True, fullgraph=True)(torch.ones(8, device=device))
    except Exception as reason:  # a missing compiler comes in many classes
        note("torch_compile", f"left out: nothing can be compiled here ({str(reason).splitlines()[0]})")
        return False
    _compiling = True
    return True


def switch_off() -> None:
    """Compute everything as it is written again."""
    global _compiling
    _compiling = False


def _tried(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1


def _cache() -> Path:
    """Where compiled functions are kept for the next run."""
    own = os.environ.get("TUNESMITH_CACHE")
    return (
        Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tunesmith"
    ) / "compiled"
