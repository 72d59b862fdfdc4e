"""The names in an adapter's folder, and what can be said of several adapters from them.  Knows no tensors; imports no
torch."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith import log
from tunesmith.log import ModelError
from tunesmith.models.complete import read_header, read_json, refuse_no_files

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
HOLDS = "holds"
"""In the weights' metadata: a JSON list of the adapters that were merged before this one and are in it."""


def read_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json`, of the right types where anything here reads it.  Raises ModelError naming the key."""
    path = folder / CONFIG
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{path}: an adapter of type {config.get('peft_type')}; only LoRA is built")
    for key, (fits, wanted) in _WANTED.items():
        if key in config and not fits(config[key]):
            raise ModelError(f"{path}: {key} must be {wanted}, got {str(config[key])[:60]!r}")
    return config


def check(folder: Path) -> dict[str, Any]:
    """What `read_config` gives.  Raises ModelError too when there is no whole adapter beside it, told from its files alone."""
    if not (folder / CONFIG).is_file():
        raise ModelError(f"adapter_name_or_path: {folder} holds no adapter (no {CONFIG})")
    refuse_no_files(folder)
    config = read_config(folder)
    if (folder / WEIGHTS).is_file():
        read_header(folder / WEIGHTS)
    elif not (folder / PICKLED).is_file():
        raise ModelError(f"{folder}: no adapter weights (looked for {WEIGHTS}, {PICKLED})")
    return config


def held(metadata: Mapping[str, str], file: Path) -> tuple[str, ...]:
    """The names of the adapters that are in this one, by its weights' metadata.  Raises ModelError for a broken list."""
    try:
        names = json.loads(metadata.get(HOLDS, "[]"))
    except ValueError:
        names = None
    if not _is_names(names):
        raise ModelError(f"{file}: its metadata '{HOLDS}' is no list of names")
    return tuple(names)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_ids(value: Any) -> bool:
    lists = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids) for ids in lists)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "r": (lambda value: type(value) is int and value > 0, "a whole number, at least 1"),
    "lora_alpha": (lambda value: _is_number(value) and value != 0, "a number, and 0 would undo the adapter"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "target_modules": (lambda value: value is None or _is_names(value) or _is_pattern(value), "names or an expression"),
    "modules_to_save": (lambda value: value is None or _is_names(value), "a list of names"),
    "trainable_token_indices": (lambda value: value is None or _are_ids(value), "a list of ids"),
    **dict.fromkeys(
        ("use_rslora", "use_dora", "fan_in_fan_out"), (lambda value: isinstance(value, bool), "true or false")
    ),
    "base_model_name_or_path": (lambda value: value is None or isinstance(value, str), "a name"),
    "init_lora_weights": (lambda value: value != "loftq", "a start that is built here, and loftq is not"),
}
"""Key -> whether a value fits it, and what it must be."""


def refuse_twice(named: Sequence[tuple[str, Iterable[str]]]) -> None:
    """Raise ModelError when one of several adapters, each given with the names that it holds, already holds another."""
    names = [name for name, _ in named]
    for name, holds in named:
        twice = [held for held in holds if held in names]
        if twice:
            raise ModelError(f"adapter_name_or_path: {name} already holds {', '.join(twice)}; name it alone")


def compare_bases(folder: Path, written: str | None, base: str) -> None:
    """Warn when an adapter was trained on another model than `base`.  Same-named ones may lie in different places;
    differently named ones deserve a word, for shapes alone may fit."""
    if written and Path(written).name != Path(base).name:
        log.warn(str(folder), f"this adapter was trained on {written}, not on {base}")
