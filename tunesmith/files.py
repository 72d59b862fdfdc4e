"""How a file or a folder appears whole or not at all.  Knows the file system; knows nothing of what is written.

Everything new is written under a temporary name beside its place, brought to the disk, and renamed.  A reader, or a
machine that loses power, finds the old state or the new one.  What a killed process left is removed by
`remove_leftovers`.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

_PARTIAL = ".partial"
_REPLACED = ".replaced"

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when a disk, or a user's share of it, is full."""


def write_beside(path: Path, content: str | bytes) -> None:
    """Make `path` hold `content` (text as UTF-8), replacing what was there.  Its folder must exist."""
    with open_beside(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_beside(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece, which becomes `path` when all went well, replacing what was there.  The folder
    must exist."""
    beside = _name_beside(path)
    try:
        with open(beside, "xb") as file:
            yield file
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
    if final.exists() or final.is_symlink():
        _remove(replaced)
        os.rename(final, replaced)
    os.rename(filled, final)
    sync_folder(final.parent)
    _remove(replaced)


def publish_files(filled: Path, final: Path) -> None:
    """Move every file under `filled` to the same place under `final`, each whole and already on the disk, replacing
    what has its name; other files in `final` stay.  `filled`, on the same disk, is removed."""
    for path in sorted(filled.rglob("*")):
        if path.is_file():
            _sync_file(path)
            place = final / path.relative_to(filled)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
            sync_folder(place.parent)
    _remove(filled)


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


def remove_folder(folder: Path) -> None:
    """Remove a folder, which disappears at once; what a kill leaves of it is one of the leftovers."""
    gone = _name_beside(folder)
    os.rename(folder, gone)
    shutil.rmtree(gone)


@contextmanager
def only_one_to(final: Path) -> Iterator[Path]:
    """A new, empty folder to fill and then hand to `publish_folder(it, final)`; gone if that did not happen.

    It is locked while it is being filled, so that what a killed process left of the same can be known, and is removed.
    """
    folder = folder_beside(final)
    with _locked(folder, or_not=True):
        for left in final.parent.glob(f".{final.name}.*{_PARTIAL}"):
            if left != folder and left.is_dir():
                try:
                    with _locked(left):
                        shutil.rmtree(left)
                except OSError:  # somebody fills it, or nobody can tell
                    continue
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def is_full(problem: BaseException) -> bool:
    """Whether something failed because a disk is full.  Libraries that are not Python's say it in words."""
    if isinstance(problem, OSError):
        return problem.errno in FULL
    return any(f"(os error {number})" in str(problem) for number in FULL)


def reason(problem: Exception) -> str:
    """Why something can't be written, in the system's words."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return os.strerror(errno.ENOSPC) if is_full(problem) else str(problem)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the folder's disk."""
    return shutil.disk_usage(folder).free


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


@contextmanager
def _locked(folder: Path, *, or_not: bool = False) -> Iterator[None]:
    """Hold a folder's lock, which the system frees when the process ends.  Raises OSError when another process holds it, or
    the file system has no locks; with `or_not` goes on without."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError) if or_not else nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _name_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")


def _sync_file(path: Path) -> None:
    # Some libraries write through private temporary files; what is published is as readable as what the user makes.
    path.chmod(0o666 & ~_umask())
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
