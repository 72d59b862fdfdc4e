"""Which way a model is exported, and whether it can be: decided from its files, before torch is imported."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.log import OptionError
from tunesmith.models import complete
from tunesmith.models.complete import Weights
from tunesmith.models.merging import changes, stored
from tunesmith.models.merging.changes import Change, InMemoryOnly
from tunesmith.models.merging.stored import Stored
from tunesmith.models.where import Source

GIGABYTE = 1_000_000_000
SPARE_BYTES = 64 << 20
"""Room on the disk for everything but weights: tokenizer, configuration."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`tensors` and their `changes`; with `in_memory`, why the model must be held whole (then both are empty)."""

    tensors: Mapping[str, Stored]
    changes: Mapping[str, Sequence[Change]]
    needed_bytes: int
    in_memory: str | None = None


def make(source: Source, adapters: Sequence[Source], *, bins: bool = False) -> Plan:
    """The plan for a model and its adapters, merged in their order; with `bins`, written as `.bin` files.

    Raises ModelError for a base or an adapter that is damaged or does not fit."""
    weights = complete.check(source)
    needed = sum(file.stat().st_size for file in weights.files)
    try:
        if bins:
            raise InMemoryOnly("export_legacy_format asks for .bin files")
        tensors, found = _streamed(source, adapters, weights)
    except InMemoryOnly as reason:
        return Plan({}, {}, needed, str(reason))
    return Plan(tensors, found, needed)


def _streamed(
    source: Source, adapters: Sequence[Source], weights: Weights
) -> tuple[dict[str, Stored], dict[str, list[Change]]]:
    if weights.pickled:
        raise InMemoryOnly("the base's weights are pickled")
    tensors = stored.of_model(weights)
    found = changes.of_adapters(adapters, source.name, tensors)
    if found and not _ends_are_apart(complete.read_config(source.folder)):
        for name in found:
            outside = not any(part.isdigit() for part in name.split("."))  # layers are numbered, embeddings are not
            if outside and len(tensors[name].shape) == 2:
                raise InMemoryOnly(f"{name} is changed, and embeddings and head may be one weight")
    return tensors, found


def _ends_are_apart(config: Mapping[str, Any]) -> bool:
    """Whether the config says that embeddings and head are two weights."""
    return {**config.get("text_config", {}), **config}.get("tie_word_embeddings") is False


def place(written: str, read: Mapping[str, Sequence[Source]]) -> Path:
    """The folder to write, which is not there yet or empty.  `read`: option -> what it names, which is not written over.

    Raises OptionError naming what is in the way."""
    folder = Path(written).expanduser().resolve()
    for option, sources in read.items():
        for source in sources:
            if folder == source.folder.resolve():
                raise OptionError(f"export_dir: {written} is the folder that {option} names; choose another one")
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"export_dir: {written} is a file; a new folder is meant")
    if folder.is_dir() and any(folder.iterdir()):
        raise OptionError(f"export_dir: {written} is not empty; choose another folder, or remove that one")
    return folder


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise OptionError when the disk has no room for so much."""
    there = next(parent for parent in folder.parents if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed_bytes + SPARE_BYTES:
        raise OptionError(
            f"export_dir: {folder} needs {needed_bytes / GIGABYTE:.1f} GB, and the disk has {free / GIGABYTE:.1f} GB free"
        )


def describe(plan: Plan) -> str:
    """How much is merged, for people."""
    return f"{len(plan.changes)} of {len(plan.tensors)} tensors merged" if plan.changes else "a copy"
