"""Which checkpoints a run's folder holds, and whether each is whole.  Knows names, sizes and hashes; loads nothing."""

import json
import re
import shutil
from pathlib import Path

from tunesmith import files
from tunesmith.log import warn

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def every(folder: Path) -> list[Path]:
    """The folder's checkpoints, oldest first, whole or not."""
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step that a folder `checkpoint-N` was saved at."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match, f"{checkpoint} is no checkpoint's name"
    return int(match[1])


def write_manifest(checkpoint: Path) -> None:
    """List size and SHA-256 of each file in `checkpoint`, so that `damage` can tell whether it is whole."""
    listed = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    (checkpoint / MANIFEST).write_text(json.dumps({"files": listed}, indent=1), encoding="utf-8")


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is there, of its size and its hash."""
    try:
        listed = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {MANIFEST} can't be read"
    for name, expected in listed.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
    for name, expected in listed.items():
        if files.sha256_of(checkpoint / name) != expected["sha256"]:
            return f"{name} is not what was written"
    return None


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged ones are skipped with a line each."""
    for checkpoint in reversed(every(folder)):
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint
        warn(str(checkpoint), f"skipped, it is not whole: {reason}")
    return None


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, its manifest first: killed half-way, what is left is known not to be whole."""
    if checkpoint.is_symlink():  # what it leads to is somebody else's
        checkpoint.unlink()
        return
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def keep_newest(folder: Path, limit: int | None) -> None:
    """Remove the oldest checkpoints until `limit` are left; None keeps all."""
    if limit is not None:
        for checkpoint in every(folder)[:-limit]:
            remove(checkpoint)
