"""An optimizer's memory as named tensors and plain JSON, and back, bit for bit.  Knows torch; knows no files.

torch's own `state_dict` counts weights and `load_state_dict` casts what it reads to the weight's type; here every entry
keeps its weight's name, its type and its bits, and nothing needs pickle.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunesmith.log import RunError

SEPARATOR = "::"
"""Between a weight's name and the entry's, in a key: `model.norm.weight::exp_avg`."""

Json = dict[str, Any]


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], Json]:
    """`(tensors, meta)`: each state tensor under `weight::entry`, and everything else as JSON values.

    The tensors may be the optimizer's own, not copies.  The optimizer must have been made from named weights.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Json] = {}
    for name, parameter in _named(optimizer).items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}{SEPARATOR}{entry}"] = value.detach().contiguous()
            else:
                plain.setdefault(name, {})[entry] = value
    groups = [_group_as_json(group) for group in optimizer.param_groups]
    return tensors, {"optimizer": type(optimizer).__name__, "groups": groups, "state": plain}


def load_optimizer_state(optimizer: Optimizer, tensors: dict[str, Tensor], meta: Json) -> None:
    """Put back what `optimizer_state` gave.  Raises RunError when it belongs to another optimizer, other weights or
    other shapes."""
    parameters = _named(optimizer)
    _check(optimizer, parameters, tensors, meta)
    for group, saved in zip(optimizer.param_groups, meta["groups"], strict=True):
        for key, value in saved.items():
            group[key] = tuple(value) if isinstance(value, list) and key != "param_names" else value
    fresh: dict[str, dict[str, Any]] = {}
    for name, entries in meta["state"].items():
        fresh.setdefault(name, {}).update(entries)
    settings = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    for key, value in tensors.items():
        name, entry = key.split(SEPARATOR)
        fresh.setdefault(name, {})[entry] = value.clone().to(_device(entry, parameters[name], settings[name]))
    optimizer.state.clear()
    for name, entries in fresh.items():
        optimizer.state[parameters[name]] = entries


def _named(optimizer: Optimizer) -> dict[str, Tensor]:
    pairs = [
        pair for group in optimizer.param_groups for pair in zip(group["param_names"], group["params"], strict=True)
    ]
    return dict(pairs)


def _group_as_json(group: dict[str, Any]) -> Json:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in group.items() if key != "params"}


def _device(entry: str, parameter: Tensor, group: dict[str, Any]) -> torch.device:
    """Where the optimizer keeps an entry: beside its weight, but for step counters, which torch keeps on the CPU unless
    the whole step runs on the device."""
    on_device = entry != "step" or bool(group.get("fused")) or bool(group.get("capturable"))
    return parameter.device if on_device else torch.device("cpu")


def _check(optimizer: Optimizer, parameters: dict[str, Tensor], tensors: dict[str, Tensor], meta: Json) -> None:
    kind = type(optimizer).__name__
    if meta["optimizer"] != kind:
        raise RunError(f"the checkpoint's optimizer is {meta['optimizer']}, this run's is {kind}")
    saved = [group["param_names"] for group in meta["groups"]]
    current = [group["param_names"] for group in optimizer.param_groups]
    if saved != current:
        before, now = {n for names in saved for n in names}, set(parameters)
        example = next(iter(sorted(before ^ now)), "the order of the weights")
        raise RunError(f"the checkpoint's optimizer trains other weights than this run; first difference: {example}")
    strangers = {key.split(SEPARATOR)[0] for key in tensors}.union(meta["state"]) - parameters.keys()
    if strangers:
        raise RunError(f"the checkpoint's optimizer knows a weight that this run does not train: {min(strangers)}")
    for key, value in tensors.items():
        shape = parameters[key.split(SEPARATOR)[0]].shape
        if value.ndim == len(shape) and value.shape != shape and not _factored(value, shape):
            raise RunError(f"the checkpoint's {key} has shape {list(value.shape)}, its weight {list(shape)}")


def _factored(value: Tensor, shape: torch.Size) -> bool:
    """Adafactor keeps sums over rows or columns: one dimension of 1 in place of the weight's."""
    return all(have in (1, want) for have, want in zip(value.shape, shape, strict=True))
