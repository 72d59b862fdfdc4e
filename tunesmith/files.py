"""How a file or a folder appears whole or not at all.  Knows the file system; knows nothing of what is written.

Everything new is written under a temporary name beside its place, brought to the disk, and renamed.  A reader, or a
machine that loses power, finds the old state or the new one.  What a killed process left is removed by
`remove_leftovers`.
"""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

MANIFEST = "manifest.json"
"""In a checkpoint: the size and hash of each of its other files."""

_PARTIAL = ".partial"
_REPLACED = ".replaced"


def write_beside(path: Path, content: str | bytes) -> None:
    """Make `path` hold `content` (text as UTF-8), replacing what was there.  Its folder must exist."""
    beside = _name_beside(path)
    try:
        with open(beside, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def folder_beside(final: Path) -> Path:
    """A new, empty folder to fill and then hand to `publish_folder(it, final)`."""
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = _name_beside(final)
    beside.mkdir()
    return beside


def publish_folder(filled: Path, final: Path) -> None:
    """Make the folder `filled` appear as `final`, all its files already on the disk.  Both lie in the same folder.

    A folder that `final` names already is kept under another name until the new one has its place.
    """
    for path in [*filled.rglob("*"), filled]:
        if path.is_dir():
            sync_folder(path)
        else:
            _sync_file(path)
    replaced = final.with_name(f".{final.name}{_REPLACED}")
    if final.exists():
        _remove(replaced)
        os.rename(final, replaced)
    os.rename(filled, final)
    sync_folder(final.parent)
    _remove(replaced)


def remove_folder(folder: Path) -> None:
    """Make a folder disappear at once, then free what it held: no reader finds half of it."""
    gone = _name_beside(folder)
    os.rename(folder, gone)
    shutil.rmtree(gone)


def publish_files(filled: Path, folder: Path) -> None:
    """Move each file of the folder `filled` into `folder`, whole or not at all, replacing those of the same names."""
    for path in sorted(filled.iterdir()):
        _sync_file(path)
        os.replace(path, folder / path.name)
    filled.rmdir()
    sync_folder(folder)


def remove_leftovers(folder: Path) -> list[Path]:
    """Undo what a killed process left half done right under `folder`; the paths that were removed.

    Only for the one process that writes there: another's unfinished file would be taken for a leftover.
    """
    for replaced in folder.glob(f".*{_REPLACED}"):
        final = replaced.with_name(replaced.name[1 : -len(_REPLACED)])
        if not final.exists():
            os.rename(replaced, final)
    leftovers = [*folder.glob(f".*{_PARTIAL}"), *folder.glob(f".*{_REPLACED}")]
    for path in leftovers:
        _remove(path)
    return leftovers


def write_manifest(folder: Path) -> None:
    """Write down the size and hash of every file under `folder`, for `damage` to compare."""
    held = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    manifest = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in held
    }
    write_beside(folder / MANIFEST, json.dumps({"files": manifest}, indent=1))


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that has a manifest, in words that follow its name; None when it is whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"has no {MANIFEST}"
    except (ValueError, KeyError, TypeError):
        return f"has an unreadable {MANIFEST}"
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"lacks {name}"
        if path.stat().st_size != expected["bytes"]:
            return f"holds {path.stat().st_size} bytes of {name}, not {expected['bytes']}"
        if sha256_of(path) != expected["sha256"]:
            return f"holds a {name} that has changed since it was written"
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The folders `checkpoint-STEP` under `folder` that have a manifest, by step."""
    found = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in folder.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdecimal() and (path / MANIFEST).is_file()
    }
    return [found[step] for step in sorted(found)]


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk, so that a rename in it outlives a loss of power."""
    if os.name == "nt":  # Windows has no such call; its renames are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")


def _sync_file(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
