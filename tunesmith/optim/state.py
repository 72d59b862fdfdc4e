"""An optimizer's memory as named tensors and plain JSON, and back, bit for bit.  Knows torch; knows no files.

torch's own `state_dict` counts weights and `load_state_dict` casts what it reads to the weight's type; here every entry
keeps its weight's name, its type and its bits, and nothing needs pickle.
"""

import pkgutil
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tunesmith.log import RunError

SEPARATOR = "::"
"""Between a weight's name and the entry's, in a key: `model.norm.weight::exp_avg`."""

WRAPPERS = {
    "OptimState8bit": "torchao.optim.subclass_8bit:OptimState8bit",
    "OptimState4bit": "torchao.optim.subclass_4bit:OptimState4bit",
}
"""Kinds of tensors that are made of others; in a key the part's name stands behind the entry's."""

DTYPES = {str(one).removeprefix("torch."): one for one in (torch.float32, torch.bfloat16, torch.float16)}

GROUP = "group"
"""What stands for a weight's name in the key of a group's tensor, with the group's number behind it."""

Json = dict[str, Any]


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], Json]:
    """`(tensors, meta)`: each state tensor under `weight::entry`, and everything else as JSON values.

    The tensors may be the optimizer's own, not copies.  The optimizer must have been made from named weights.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Json] = {}
    wrapped: dict[str, list[Any]] = {}
    for name, parameter in _named(optimizer).items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                plain.setdefault(name, {})[entry] = value
            elif is_traceable_wrapper_subclass(value):
                parts, context = value.__tensor_flatten__()
                wrapped[f"{name}{SEPARATOR}{entry}"] = [type(value).__name__, parts, [_as_json(one) for one in context]]
                tensors |= {f"{name}{SEPARATOR}{entry}{SEPARATOR}{part}": vars(value)[part] for part in parts}
            else:
                tensors[f"{name}{SEPARATOR}{entry}"] = value.detach().contiguous()
    for number, group in enumerate(optimizer.param_groups):
        found = {key: value for key, value in group.items() if isinstance(value, Tensor)}
        tensors |= {f"{GROUP}{number}{SEPARATOR}{key}": value.detach().clone() for key, value in found.items()}
    groups = [_group_as_json(group) for group in optimizer.param_groups]
    meta = {"optimizer": type(optimizer).__name__, "groups": groups, "state": plain}
    return _apart(tensors), meta | ({"wrapped": wrapped} if wrapped else {})


def load_optimizer_state(optimizer: Optimizer, tensors: dict[str, Tensor], meta: Json) -> None:
    """Put back what `optimizer_state` gave.  Raises RunError when it belongs to another optimizer, other weights or
    other shapes."""
    parameters = _named(optimizer)
    of_groups = {key: value for key, value in tensors.items() if _is_of_group(key, len(optimizer.param_groups))}
    tensors = dict(_whole({key: value for key, value in tensors.items() if key not in of_groups}, meta))
    _check(optimizer, parameters, tensors, meta)
    for number, (group, saved) in enumerate(zip(optimizer.param_groups, meta["groups"], strict=True)):
        prefix = f"{GROUP}{number}{SEPARATOR}"
        group |= {key.removeprefix(prefix): value.clone() for key, value in of_groups.items() if key.startswith(prefix)}
        for key, value in saved.items():
            group[key] = tuple(value) if isinstance(value, list) and key != "param_names" else value
    fresh: dict[str, dict[str, Any]] = {}
    for name, entries in meta["state"].items():
        fresh.setdefault(name, {}).update(entries)
    settings = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    for key, value in tensors.items():
        name, entry = key.split(SEPARATOR)
        own = value if is_traceable_wrapper_subclass(value) else value.clone()
        fresh.setdefault(name, {})[entry] = own.to(_device(entry, parameters[name], settings[name]))
    optimizer.state.clear()
    for name, entries in fresh.items():
        optimizer.state[parameters[name]] = entries


def _as_json(value: Any) -> Any:
    return {"dtype": str(value).removeprefix("torch.")} if isinstance(value, torch.dtype) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return DTYPES[value["dtype"]]
    return torch.Size(value) if isinstance(value, list) else value


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with copies of what several weights share, such as tables of bitsandbytes, since a file holds each once."""
    seen: set[int] = set()
    for key, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        if place in seen and value.numel():
            tensors[key] = value.clone()
        seen.add(place)
    return tensors


def _is_of_group(key: str, groups: int) -> bool:
    return any(key.startswith(f"{GROUP}{number}{SEPARATOR}") for number in range(groups))


def _whole(tensors: dict[str, Tensor], meta: Json) -> Iterator[tuple[str, Tensor]]:
    """The tensors by their keys, those that are made of others put together."""
    wrapped = meta.get("wrapped", {})
    parts_of = {f"{key}{SEPARATOR}{part}" for key, (_, parts, _) in wrapped.items() for part in parts}
    yield from ((key, value) for key, value in tensors.items() if key not in parts_of)
    for key, (kind, parts, context) in wrapped.items():
        if kind not in WRAPPERS:
            raise RunError(f"the checkpoint's {key} is of an unknown kind, {kind}")
        inner = {part: tensors[f"{key}{SEPARATOR}{part}"].clone() for part in parts}
        made: Tensor = pkgutil.resolve_name(WRAPPERS[kind]).__tensor_unflatten__(
            inner, [_from_json(one) for one in context]
        )
        yield key, made


def _named(optimizer: Optimizer) -> dict[str, Tensor]:
    pairs = [
        pair for group in optimizer.param_groups for pair in zip(group["param_names"], group["params"], strict=True)
    ]
    return dict(pairs)


def _group_as_json(group: dict[str, Any]) -> Json:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in group.items()
        if key != "params" and not isinstance(value, Tensor)
    }


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
    settings = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    strangers = {key.split(SEPARATOR)[0] for key in tensors}.union(meta["state"]) - parameters.keys()
    if strangers:
        raise RunError(f"the checkpoint's optimizer knows a weight that this run does not train: {min(strangers)}")
    for key, value in tensors.items():
        name = key.split(SEPARATOR)[0]
        shape = parameters[name].shape
        if value.ndim == len(shape) and value.shape != shape and not _fits(value, shape, settings[name]):
            raise RunError(f"the checkpoint's {key} has shape {list(value.shape)}, its weight {list(shape)}")


def _fits(value: Tensor, shape: torch.Size, group: dict[str, Any]) -> bool:
    """Adafactor keeps sums over rows or columns: one dimension of 1 in place of the weight's.  Of projected gradients, blocks and
    chosen entries there are fewer."""
    if group.get("rank") or group.get("mode") == "ratio" or "blocks" in group:
        return True
    return all(have in (1, want) for have, want in zip(value.shape, shape, strict=True))
