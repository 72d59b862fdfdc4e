"""Prepared rows on disk, memory-mapped: found by a key that hashes all that shapes them, and whole or not there.  Knows
arrays and a key's parts; knows not how rows are prepared."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tunesmith import files, log
from tunesmith.data.keeping.arrays import ARRAYS, WEIGHT, Rows, joined, renumbered
from tunesmith.log import OptionError, RunError

FORMAT = 1
"""Changes when stores of before can no longer be read."""

KEPT = 4
"""Stores kept of the same datasets, prepared in different ways."""

ONES = 1 << 20
"""Weights that are written at once."""

LONGEST_SHOWN = 60
"""Characters of a value that are shown when it differs."""

META = "meta.json"
WEIGHTS = "weights"
"""The array that only a store has in which some token weighs neither 0 nor 1."""
Key = Mapping[str, Any]
"""What shapes prepared rows, part by part: an option's value, a file's hash."""


@dataclass(slots=True)
class Stored:
    """Prepared rows, and what is known about how they came about."""

    rows: Rows
    report: dict[str, Any]


Prepare = Callable[[], Iterator[Rows | dict[str, Any]]]
"""Yields rows part by part, and at last the report."""


def default_folder() -> Path:
    """Where stores lie unless the user names a place."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TUNESMITH_CACHE") or Path(cache) / "tunesmith") / "prepared"


def in_memory(prepare: Prepare) -> Stored:
    """Rows that are prepared now and forgotten with the process."""
    parts, report = list[Rows](), dict[str, Any]()
    for part in prepare():
        if isinstance(part, Rows):
            parts.append(part)
        else:
            report = part
    return Stored(joined(parts), report)


def cached_or_in_memory(names: str, key: Key, prepare: Prepare) -> Stored:
    """As `cached`, but nothing is written."""
    folder = _family(names) / _digest(key)[:16]
    return _read(folder) or in_memory(prepare)


def named_or_in_memory(folder: Path, key: Key, prepare: Prepare, *, anew: bool) -> Stored:
    """As `named`, but nothing is written.  Raises OptionError as it does."""
    stored = None if anew else _read(folder)
    if stored is None:
        _refuse_strangers(folder)
        return in_memory(prepare)
    _refuse_differences(folder, key)
    return stored


def cached(names: str, key: Key, prepare: Prepare, *, anew: bool) -> Stored:
    """Rows of the datasets `names`, from the store if it has them by this key; prepared, stored and mapped if not.  Says
    which, and what differs from the last time.  One process prepares while others wait."""
    family = _family(names)
    folder = family / _digest(key)[:16]
    try:
        family.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        log.note("prepared data", f"is not kept, as {family} cannot be written: {reason.strerror}")
        return in_memory(prepare)
    with _lock(family / f"{folder.name}.lock"):
        stored = None if anew else _read(folder)
        if stored is None:
            log.note("prepared data", f"miss: {'overwrite_cache' if anew else _news(family, key)}")
            try:
                _write(folder, key, prepare)
            except OSError as reason:
                if not files.is_full(reason):
                    raise
                log.warn("prepared data", f"is not kept, as the disk of {family} is full; rows are held in memory")
                return in_memory(prepare)
            _prune(family)
            stored = _read(folder)
            assert stored is not None, f"{folder} was written and is not there"
        else:
            os.utime(folder)
            log.note("prepared data", f"cache hit ({folder})")
    return stored


def named(folder: Path, key: Key, prepare: Prepare, *, anew: bool) -> Stored:
    """Rows in the folder the user named: read if they fit the options, prepared and written if there are none.  Raises
    OptionError when the folder holds something else, or rows prepared in another way."""
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"tokenized_path: {folder} is a file, and must be a folder or not be there")
    lock = folder.parent / f".{folder.name}.lock"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as reason:
        raise OptionError(f"tokenized_path: {folder} can't be made: {reason.strerror}") from reason
    with _lock(lock):
        stored = None if anew else _read(folder)
        if stored is None:
            _refuse_strangers(folder)
            try:
                _write(folder, key, prepare)
            except OSError as reason:
                raise RunError(f"tokenized_path: {folder} can't be written: {reason.strerror}") from reason
            log.note("tokenized_path", f"prepared data written to {folder}")
            stored = _read(folder)
            assert stored is not None, f"{folder} was written and is not there"
            return stored
        _refuse_differences(folder, key)
    log.note("tokenized_path", f"prepared data read from {folder}")
    return stored


def _family(names: str) -> Path:
    """Where the stores of some datasets lie, prepared in different ways."""
    return default_folder() / f"{_slug(names)}-{_digest(names)[:8]}"


def _refuse_strangers(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / META).is_file():
        raise OptionError(f"tokenized_path: {folder} holds files that are no prepared data")


def _refuse_differences(folder: Path, key: Key) -> None:
    if differing := differences(_meta(folder)["key"], key):
        raise OptionError(
            f"tokenized_path: {folder} was prepared in another way: {', '.join(differing)}; "
            "name another folder, or set overwrite_cache: true"
        )


def differences(before: Key, now: Key) -> list[str]:
    """`cutoff_len 1024 -> 2048` for each part that differs; only the names of parts that are hashes."""
    found = []
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name), now.get(name)
        if old != new:
            found.append(
                f"{name} changed" if _is_hash(old) or _is_hash(new) else f"{name} {_shown(old)} -> {_shown(new)}"
            )
    return found


def _news(family: Path, key: Key) -> str:
    """What is new about a key: how it differs from that of the store used last, or that there was none."""
    stores = sorted(_stores(family), key=lambda folder: folder.stat().st_mtime)
    differing = differences(_meta(stores[-1])["key"], key) if stores else []
    if not differing:
        return "not prepared before"
    return ", ".join(differing[:4]) + (f", and {len(differing) - 4} more" if len(differing) > 4 else "")


def _stores(family: Path) -> list[Path]:
    return [each for each in family.iterdir() if ".new-" not in each.name and _meta(each).get("format") == FORMAT]


def _prune(family: Path) -> None:
    """Remove the stores used longest ago beyond KEPT."""
    stores = sorted(_stores(family), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in stores[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Stored | None:
    """The store in a folder, mapped; None when there is none of this format, or a damaged one."""
    meta = _meta(folder)
    if meta.get("format") != FORMAT:
        return None
    arrays: dict[str, Any] = {}
    for name, dtype in (ARRAYS | {WEIGHTS: WEIGHT} if meta.get("weighted") else ARRAYS).items():
        path, count = folder / f"{name}.bin", meta["tokens" if name in ("ids", "trained", WEIGHTS) else "rows"]
        if not path.is_file() or path.stat().st_size != count * np.dtype(dtype).itemsize:
            log.warn("prepared data", f"{path} is damaged and is written anew")
            return None
        arrays[name] = np.memmap(path, dtype=dtype, mode="r") if count else np.zeros(0, dtype)
    return Stored(Rows(**arrays, files=meta["files"]), meta["report"])


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _write(folder: Path, key: Key, prepare: Prepare) -> None:
    """Prepare rows into a new folder beside `folder` and rename it when it is whole."""
    fresh = folder.with_name(f"{folder.name}.new-{os.getpid()}")
    for left in folder.parent.glob(f"{folder.name}.new-*"):  # by processes that were killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir()
    try:
        _fill(fresh, key, prepare())
        old = folder.with_name(f"{folder.name}.new-{os.getpid()}-old")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fill(folder: Path, key: Key, parts: Iterable[Rows | dict[str, Any]]) -> None:
    """Write parts as they come, so that no more than one is held."""
    outputs = {name: open(folder / f"{name}.bin", "wb") for name in ARRAYS}  # noqa: SIM115 - closed below
    files: dict[str, int] = {}
    rows = tokens = 0
    report: dict[str, Any] = {}
    try:
        for part in parts:
            if not isinstance(part, Rows):
                report = part
                continue
            file_of = renumbered(part, files)
            for name, array in part.arrays().items():
                values = file_of if name == "file_of" else array
                outputs[name].write(np.ascontiguousarray(values, ARRAYS[name]).data)
            if part.weights is not None and WEIGHTS not in outputs:
                outputs[WEIGHTS] = open(folder / f"{WEIGHTS}.bin", "wb")  # noqa: SIM115 - closed below
                _write_ones(outputs[WEIGHTS], tokens)
            if WEIGHTS in outputs:
                weights = np.ones(len(part.ids)) if part.weights is None else part.weights
                outputs[WEIGHTS].write(np.ascontiguousarray(weights, WEIGHT).data)
            rows, tokens = rows + len(part.lengths), tokens + len(part.ids)
        for output in outputs.values():
            output.flush()
            os.fsync(output.fileno())
    finally:
        for output in outputs.values():
            output.close()
    meta = {"format": FORMAT, "key": key, "rows": rows, "tokens": tokens, "files": list(files), "report": report}
    meta["weighted"] = WEIGHTS in outputs
    with open(folder / META, "w", encoding="utf-8") as file:
        json.dump(meta, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def _write_ones(output: BinaryIO, tokens: int) -> None:
    """The weights of as many tokens, all of them before the first that weighs something else."""
    for start in range(0, tokens, ONES):
        output.write(np.ones(min(ONES, tokens - start), WEIGHT).data)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock, which the system releases when the process ends, however it ends."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.note("prepared data", "waiting for another process that prepares it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("sha256:")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _slug(names: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in names)[:40]
