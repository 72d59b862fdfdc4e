"""Where a model lies: a folder, or a name on a hub that is fetched into one.  Knows no weights; imports no torch."""

import difflib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tunesmith import log
from tunesmith.config.model import ModelConfig
from tunesmith.log import MissingExtra, ModelError

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken"]
PICKLED = ["*.bin"]
"""Fetched only from models that have no safetensors."""
ELSEWHERE = ["*/*"]
"""Folders inside a model's hub page hold the same weights for other programs."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model or adapter on disk.  `name`: the absolute folder, or the hub name as the user wrote it."""

    name: str
    folder: Path
    hub: Literal["folder", "huggingface", "modelscope"] = "folder"
    revision: str | None = None
    """The hub's commit; None for a folder."""


def find(cfg: ModelConfig) -> Source:
    """The base model's folder, fetched from its hub when `model_name_or_path` is no folder here.

    Raises ModelError that says what was looked for, and what folders are near.
    """
    if not cfg.model_name_or_path:
        raise ModelError("model_name_or_path: not written; it is a model's folder or its name on a hub")
    source = _find("model_name_or_path", cfg.model_name_or_path, "config.json", cfg)
    if source.hub == "folder" and cfg.model_revision != ModelConfig().model_revision:
        _warn_of_revision(source.name)
    return source


@cache
def _warn_of_revision(folder: str) -> None:
    """Once for each folder, however often it is looked for."""
    log.warn("model_revision", f"has no effect: {folder} is a folder, whose files are taken as they are")


def find_adapters(cfg: ModelConfig) -> list[Source]:
    """The adapters' folders, in the order written, found as `find` finds the base model."""
    return [_find("adapter_name_or_path", name, "adapter_config.json", cfg) for name in cfg.adapter_name_or_path]


def _find(option: str, name: str, mark: str, cfg: ModelConfig) -> Source:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(str(folder.resolve()), folder.resolve())
    if folder.is_file():
        raise ModelError(f"{option}: {name} is a file; the folder that holds it is meant")
    if not HUB_NAME.fullmatch(name):
        raise ModelError(f"{option}: there is no folder {folder}{_near(folder, mark)}")
    try:
        return _from_modelscope(name, cfg) if cfg.use_modelscope else _from_hugging_face(name, cfg)
    except (OSError, ValueError) as failure:
        hub = "ModelScope" if cfg.use_modelscope else "Hugging Face"
        reason = str(failure).strip().split("\n")[0]
        raise ModelError(
            f"{option}: {name!r} is no folder here ({folder.absolute()}), and {hub} did not give it at revision "
            f"{cfg.model_revision!r} ({type(failure).__name__}: {reason}){_near(folder, mark)}"
        ) from failure


def _from_hugging_face(name: str, cfg: ModelConfig) -> Source:
    from huggingface_hub import snapshot_download

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=cfg.model_revision,
                cache_dir=cfg.cache_dir,
                token=cfg.hf_hub_token,
                allow_patterns=list(patterns),
                ignore_patterns=ELSEWHERE,
            )
        )

    folder = fetch(WANTED)
    if not any(folder.glob("*.safetensors")):
        folder = fetch([*WANTED, *PICKLED])
    return Source(name, folder, "huggingface", folder.name)  # the hub's cache names a snapshot by its commit


def _from_modelscope(name: str, cfg: ModelConfig) -> Source:
    try:
        fetch = importlib.import_module("modelscope").snapshot_download
    except ImportError:
        raise MissingExtra("use_modelscope needs a package: pip install 'tunesmith[modelscope]'") from None
    revision = "master" if cfg.model_revision == "main" else cfg.model_revision  # what ModelScope calls the same branch
    return Source(name, Path(fetch(name, revision=revision, cache_dir=cfg.cache_dir)), "modelscope", revision)


def _near(folder: Path, mark: str) -> str:
    """The model folders that a mistyped path may have meant, as the end of a sentence."""
    parent = folder.parent
    while not parent.is_dir():
        parent = parent.parent
    models = {path.parent.name: path.parent for path in [*parent.glob(f"*/{mark}"), *parent.glob(f"*/*/{mark}")]}
    names = difflib.get_close_matches(folder.name, models, n=3, cutoff=0.5) or sorted(models)[:3]
    return f"; near: {', '.join(str(models[name]) for name in names)}" if names else ""
