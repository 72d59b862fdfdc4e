"""The names in an adapter's folder, and what can be said of several adapters from them.  Knows no tensors; imports no
torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tunesmith import log
from tunesmith.log import ModelError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
HOLDS = "holds"
"""In the weights' metadata: a JSON list of the adapters that were merged before this one and are in it."""


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
