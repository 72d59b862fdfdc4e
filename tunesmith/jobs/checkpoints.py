"""Which checkpoints a run's folder holds, and whether each is whole.  Knows names, sizes and hashes; loads nothing."""

import json
import re
from pathlib import Path
from typing import Any

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
    if not (checkpoint / MANIFEST).exists():
        return f"it has no {MANIFEST}"
    try:
        listed = _listed(checkpoint / MANIFEST)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"its {MANIFEST} can't be read"
    try:
        for name, (size, _) in listed.items():
            path = checkpoint / name
            if not path.exists():
                return f"{name} is missing"
            if not path.is_file():
                return f"{name} is no file"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
        for name, (_, digest) in listed.items():
            if files.sha256_of(checkpoint / name) != digest:
                return f"{name} is not what was written"
    except OSError as problem:
        return f"{name} can't be read: {problem.strerror}"
    return None


def _listed(manifest: Path) -> dict[str, tuple[Any, Any]]:
    """Size and hash by file.  Raises one of many errors when it was not written by `write_manifest`."""
    if not manifest.is_file():
        raise ValueError(f"{manifest} is no file")
    listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    found = {name: (expected["bytes"], expected["sha256"]) for name, expected in listed.items()}
    if not found or any("\0" in name or name.startswith("/") or ".." in name.split("/") for name in found):
        raise ValueError(f"{manifest} lists no files")
    return found


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged ones are skipped with a line each."""
    for checkpoint in reversed(every(folder)):
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint
        warn(str(checkpoint), f"skipped, it is not whole: {reason}")
    return None


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint at once: killed half-way, what is left has no checkpoint's name."""
    if checkpoint.is_symlink():  # what it leads to is somebody else's
        checkpoint.unlink()
        return
    files.remove_folder(checkpoint)


def keep_newest(folder: Path, limit: int | None, step: int | None = None, *, best: int | None = None) -> None:
    """Remove the oldest checkpoints until `limit` are left, and that of step `best` beside them; None keeps all.

    `step`: the run's own.  Checkpoints beyond it are damaged ones that were skipped, or of a course that was left when the
    user named an older one: they go first, as the run would else go on from them.
    """
    held = every(folder)
    for checkpoint in [one for one in held if step is not None and step_of(one) > step]:
        warn(str(checkpoint), f"removed: the run goes on from an earlier one and has saved step {step}")
        held.remove(checkpoint)
        remove(checkpoint)
    if limit is not None:
        for checkpoint in held[:-limit]:
            if step_of(checkpoint) != best:
                remove(checkpoint)
