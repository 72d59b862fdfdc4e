"""Saves everything a run needs to go on bit for bit, and puts it back.  Knows weights, optimizer and places in the
data; knows no option.  No pickle: tensors are safetensors, the rest is JSON."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tunesmith import files
from tunesmith.jobs import checkpoints
from tunesmith.log import RunError, TunesmithError
from tunesmith.models.weights import reason
from tunesmith.optim.state import load_optimizer_state, optimizer_state
from tunesmith.train import position
from tunesmith.train.position import Position
from tunesmith.train.runtime import Runtime

POSITION = "resume.json"


def save(
    folder: Path,
    place: Position,
    optimizer: Optimizer | None,
    schedule: LRScheduler,
    runtime: Runtime,
    write_model: Callable[[Path], None],
) -> Path:
    """Publish `folder`/checkpoint-STEP whole or not at all, on rank 0; returns its path on every rank.

    `write_model(path)` writes the trained weights (and what makes the folder loadable elsewhere).  `optimizer` None
    leaves optimizer and random states out: such a checkpoint cannot be resumed.
    """
    final = folder / f"checkpoint-{place.step}"
    states = runtime.random_states()
    with runtime.main_first() as is_main:
        if is_main:
            with files.only_one_to(final) as partial:
                write_model(partial)
                if optimizer is not None:
                    _write_optimizer(partial, optimizer, schedule)
                    save_file(states, partial / "random.safetensors")
                (partial / POSITION).write_text(json.dumps(dataclasses.asdict(place), indent=1), encoding="utf-8")
                checkpoints.write_manifest(partial)
                files.publish_folder(partial, final)
    return final


def _write_optimizer(folder: Path, optimizer: Optimizer, schedule: LRScheduler) -> None:
    tensors, described = optimizer_state(optimizer)
    save_file(tensors, folder / "optimizer.safetensors")
    plan = {"optimizer": described, "schedule": _plain(schedule.state_dict())}
    (folder / "optimizer.json").write_text(json.dumps(plan), encoding="utf-8")


def load(
    checkpoint: Path,
    optimizer: Optimizer,
    schedule: LRScheduler,
    runtime: Runtime,
    read_model: Callable[[Path], None],
) -> Position:
    """Put back what `save` wrote.  The caller has checked the manifest.

    Raises RunError when the checkpoint holds no optimizer.
    """
    if not (checkpoint / "optimizer.safetensors").exists():
        raise RunError(f"{checkpoint}: saved with save_only_model, so no run can go on from it")
    try:
        read_model(checkpoint)
        plan = json.loads((checkpoint / "optimizer.json").read_text(encoding="utf-8"))
        load_optimizer_state(optimizer, load_file(checkpoint / "optimizer.safetensors"), plan["optimizer"])
        schedule.load_state_dict(_like(schedule.state_dict(), plan["schedule"]))
        runtime.restore_random_states(load_file(checkpoint / "random.safetensors"))
    except TunesmithError:
        raise
    except Exception as problem:  # whole, but written by another version or another hand, so anything may be in it
        raise RunError(f"{checkpoint}: what it holds does not fit this run: {reason(problem)}") from problem
    return read_position(checkpoint)


def read_position(checkpoint: Path) -> Position:
    """The checkpoint's place in the run, read without loading a tensor.  Raises RunError naming what in it is not known."""
    try:
        return position.read((checkpoint / POSITION).read_text(encoding="utf-8"))
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(map(str, first["loc"])) or POSITION
        raise RunError(f"{checkpoint / POSITION}: {name} is not what this version writes: {first['msg']}") from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise RunError(f"{checkpoint / POSITION}: cannot be read: {problem}") from problem


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """The schedule's state without its functions, which are rebuilt from the options."""
    found = {key: value for key, value in state.items() if key != "lr_lambdas"}
    lambdas = {"lr_lambdas": [None] * len(state["lr_lambdas"])} if "lr_lambdas" in state else {}
    return {key: _number(value) for key, value in found.items()} | lambdas


def _number(value: Any) -> Any:
    """A value without tensors, in which torchao's optimizers keep rates."""
    if isinstance(value, list):
        return [_number(one) for one in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _like(current: Any, saved: Any) -> Any:
    """What was saved, with tensors where they are now: a rate in fp32 must not go on as a number of twice its digits."""
    if isinstance(current, dict) and isinstance(saved, dict):
        return {key: _like(current.get(key), value) for key, value in saved.items()}
    if isinstance(current, list) and isinstance(saved, list) and len(current) == len(saved):
        return [_like(one, other) for one, other in zip(current, saved, strict=True)]
    return torch.tensor(saved, dtype=current.dtype) if isinstance(current, torch.Tensor) else saved
