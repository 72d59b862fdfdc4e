"""A run's folder: who may write in it, what was asked for, and where the run stands.  Knows files; knows no tensor."""

import contextlib
import datetime
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from tunesmith import files
from tunesmith.config.schema import Config
from tunesmith.config.written import is_secret
from tunesmith.jobs import checkpoints, shaping, unsaid
from tunesmith.log import OptionError, RunError, note, redacted, warn

CONFIG, FACTS, LOCK = "config.yaml", "run.json", "run.lock"

WEIGHTS = (
    "adapter_model.safetensors", "adapter_model.bin", "adapter_holds.json", "model.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""Names under which weights lie, in either format, besides those of shards."""
SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")
WRITTEN = (
    "adapter_config.json", "config.json", "generation_config.json", *WEIGHTS, "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "trainer_state.json", "trainer_log.jsonl", "train_results.json", "eval_results.json",
    "predict_results.json", "generated_predictions.jsonl", "all_results.json", "training_loss.png", "README.md",
    "events.jsonl", "run.log", CONFIG, FACTS,
)  # fmt: skip
"""Files a run writes into its folder, besides `checkpoint-N/` and model shards."""

LONGEST_HOLDER = 200
"""Letters of a lock that are read, whatever else is in it."""

_NOT_PATHS = ("auto", "true", "false")


@dataclass(frozen=True)
class Claim:
    """The folder of this run, and the checkpoint it goes on from (None: a fresh start)."""

    folder: Path
    checkpoint: Path | None
    lock: IO[str] | None = None


def default_folder(cfg: Config) -> Path:
    """`saves/MODEL/METHOD/train_DATE`, as users of the reference expect."""
    model = Path(cfg.model.model_name_or_path.rstrip("/\\")).name or "model"
    return Path("saves", model, cfg.tuning.finetuning_type, f"train_{datetime.datetime.now():%Y-%m-%d-%H-%M-%S}")


def claim(cfg: Config, origins: Mapping[str, str]) -> Claim:
    """Take the run's folder for this process, or say in one sentence why it can't be had.

    Fresh folder: a fresh start.  An interrupted run: its newest whole checkpoint.  A finished one, or one with other
    options: OptionError naming the ways out.  A folder another process works in: RunError naming that process.
    """
    folder = place(cfg)
    lock = _lock(folder)
    check(cfg)
    files.remove_leftovers(folder)
    if cfg.train.overwrite_output_dir:
        _refuse_to_remove_what_is_read(cfg, folder)
        _clear(folder)
    unsaid.tell(folder, read_facts(folder))
    checkpoint = _where_to_go_on(cfg, folder)
    _write_config(folder, cfg, origins)
    earlier = read_facts(folder) if checkpoint else {}
    write_facts(
        folder, earlier | _who_runs(cfg) | {"status": "running", "resumed_from": checkpoint and checkpoint.name}
    )
    return Claim(folder, checkpoint, lock)


def read_facts(folder: Path) -> dict[str, Any]:
    """What `run.json` says; empty when there is none or it can't be read."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Replace `run.json`."""
    files.write_beside(folder / FACTS, redacted(json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n"))


def add_facts(folder: Path, **facts: Any) -> None:
    """Add to `run.json`."""
    write_facts(folder, read_facts(folder) | facts)


def place(cfg: Config) -> Path:
    """The run's folder, made if it is not there.  Raises OptionError when it can't be made or written."""
    folder = Path(cfg.train.output_dir).expanduser() if cfg.train.output_dir else default_folder(cfg)
    if not cfg.train.output_dir:
        note("output_dir", f"not given; this run writes to {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OptionError(f"output_dir: {folder} can't be made: {problem.strerror}") from problem
    if not os.access(folder, os.W_OK):
        raise OptionError(f"output_dir: {folder} is not writable")
    return folder


def now() -> str:
    """The time, with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _lock(folder: Path) -> IO[str]:
    """Hold the folder's lock for as long as this process lives; the system frees it when the process dies."""
    try:
        opened = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as problem:
        raise OptionError(f"output_dir: {folder / LOCK} cannot be opened: {problem.strerror}") from problem
    lock = os.fdopen(opened, "r+", encoding="utf-8", errors="replace")
    holder = lock.read(LONGEST_HOLDER).strip()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_taken = False
    except BlockingIOError:
        is_taken = True
    except OSError as problem:
        is_taken = _is_alive(holder)
        warn(
            "output_dir",
            f"the file system of {folder} has no locks ({problem.strerror}): a second run in it is noticed only on this machine",
        )
    if is_taken:
        holder = holder or "another process"
        raise RunError(f"output_dir: {folder} is in use by {holder}; wait for it, or choose another output_dir")
    lock.seek(0)
    lock.truncate()
    lock.write(
        f"process {os.getpid()} on {socket.gethostname()}, started {datetime.datetime.now():%Y-%m-%d %H:%M:%S}\n"
    )
    lock.flush()
    return lock


def _is_alive(holder: str) -> bool:
    """Whether the process that a lock names runs on this machine.  Its number may have been given to another since: then a
    folder is refused that is free, which is the lesser evil."""
    named = re.match(r"process (\d+) on (\S+),", holder)
    if named is None or named[2] != socket.gethostname() or int(named[1]) == os.getpid():
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _clear(folder: Path) -> None:
    """Remove what an earlier run wrote; files it did not write stay."""
    for checkpoint in checkpoints.every(folder):
        checkpoints.remove(checkpoint)
    _unlink(folder, WRITTEN)


def remove_other_weights(folder: Path, made: Path) -> None:
    """Remove weights from a run's folder that `made`, which will be moved there, does not replace: of another
    `save_format`, they would be read instead."""
    _unlink(folder, WEIGHTS, kept={path.name for path in made.iterdir()})


def _unlink(folder: Path, names: Iterable[str], kept: Collection[str] = ()) -> None:
    shards = (path for pattern in SHARDS for path in folder.glob(pattern))
    for path in (*(folder / name for name in names), *shards):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def check(cfg: Config) -> None:
    """Refuse early, before anything is loaded or written, what `claim` would refuse.

    Raises OptionError for a folder that holds a finished run, a run with other options, or files of something else.
    """
    folder, named = Path(cfg.train.output_dir).expanduser(), _asked_checkpoint(cfg)
    if named and not named.is_dir():
        raise OptionError(f"resume_from_checkpoint: there is no folder {named}")
    if not cfg.train.output_dir or not _is_there(folder):
        return
    if (folder / LOCK).is_symlink():
        raise OptionError(f"output_dir: {folder / LOCK} is a symbolic link, and nothing is written through one")
    if odd := [name for name in (*WRITTEN, LOCK) if (folder / name).exists() and not (folder / name).is_file()]:
        raise OptionError(f"output_dir: {folder / odd[0]} is no file, and one of that name is written; remove it")
    if cfg.train.overwrite_output_dir:
        _refuse_to_remove_what_is_read(cfg, folder)
        return
    if links := [name for name in WRITTEN if (folder / name).is_symlink()]:
        raise OptionError(
            f"output_dir: {folder / links[0]} is a symbolic link, and nothing is written through one; remove it, or choose "
            "another output_dir"
        )
    facts = read_facts(folder)
    if named:
        return
    if not facts:
        _refuse_strangers(folder)
        return
    if cfg.train.resume_from_checkpoint in (False, "false"):
        raise OptionError(
            f"output_dir: {folder} holds a run and resume_from_checkpoint is false; set overwrite_output_dir: true to "
            "replace it, or choose another output_dir"
        )
    if facts.get("status") == "finished" and not shaping.is_longer(facts.get("length", {}), cfg):
        raise OptionError(
            f"output_dir: {folder} holds a finished run; set overwrite_output_dir: true to replace it, choose another "
            "output_dir, or raise num_train_epochs or max_steps to go on"
        )
    if checkpoints.every(folder):
        _refuse_changes(facts, cfg, folder)


def _is_there(folder: Path) -> bool:
    """Whether there is such a folder.  Raises OptionError where nobody may look, or a file is in its place."""
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise OptionError(f"output_dir: {folder} is a file; name a folder")
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise OptionError(f"output_dir: {folder} can't be made: something above it is a file") from None
    except OSError as problem:
        raise OptionError(f"output_dir: {folder} can't be looked at: {problem.strerror}") from problem
    return True


def _refuse_to_remove_what_is_read(cfg: Config, folder: Path) -> None:
    """A run that replaces another must not begin by removing its own model, adapters or checkpoint."""
    named = [("model_name_or_path", cfg.model.model_name_or_path), ("resume_from_checkpoint", _asked_checkpoint(cfg))]
    named += [("adapter_name_or_path", name) for name in cfg.model.adapter_name_or_path]
    for option, name in named:
        read = Path(name).expanduser().resolve() if name else None
        if read and read.exists() and read.is_relative_to(folder.resolve()):
            raise OptionError(
                f"overwrite_output_dir: {folder} holds {name}, which {option} names; choose another output_dir"
            )


def _where_to_go_on(cfg: Config, folder: Path) -> Path | None:
    """The checkpoint to go on from; None for a fresh start, with what a run that saved none left behind removed."""
    check(cfg)
    facts = read_facts(folder)
    if named := _asked_checkpoint(cfg):
        return _named(named, cfg)
    if not facts:
        if cfg.train.resume_from_checkpoint not in (None, False, "false"):
            note("resume_from_checkpoint", f"{folder} holds no run yet; starting from the beginning")
        return None
    checkpoint = checkpoints.newest_whole(folder)
    if checkpoint is not None:
        note("resume", f"going on from {checkpoint}")
        return checkpoint
    if facts.get("status") == "finished":
        raise OptionError(f"output_dir: {folder} holds a finished run without a whole checkpoint to go on from")
    if damaged := checkpoints.every(folder):
        raise RunError(
            f"output_dir: {folder} holds {len(damaged)} checkpoint{'s' * (len(damaged) > 1)} and none is whole, so no run can "
            "go on from there; choose another output_dir, or set overwrite_output_dir: true to start anew"
        )
    note("output_dir", f"{folder} holds a run that stopped before its first checkpoint; starting from the beginning")
    _clear(folder)
    return None


def _asked_checkpoint(cfg: Config) -> Path | None:
    """The checkpoint that `resume_from_checkpoint` names by its path."""
    asked = cfg.train.resume_from_checkpoint
    return Path(asked).expanduser() if isinstance(asked, str) and asked.lower() not in _NOT_PATHS else None


def _named(checkpoint: Path, cfg: Config) -> Path:
    """A checkpoint the user named: it must be whole and made with the same shaping options."""
    if not checkpoint.is_dir():
        raise OptionError(f"resume_from_checkpoint: there is no folder {checkpoint}")
    if reason := checkpoints.damage(checkpoint):
        raise OptionError(f"resume_from_checkpoint: {checkpoint} is not whole: {reason}")
    _refuse_changes(read_facts(checkpoint.parent), cfg, checkpoint)
    note("resume", f"going on from {checkpoint}")
    return checkpoint


def _refuse_changes(facts: Mapping[str, Any], cfg: Config, place: Path) -> None:
    now = shaping.options(cfg) | (facts.get("fit", {}) if cfg.train.fit == "auto" else {})  # which is taken again
    changed = shaping.differences(facts.get("options", {}), now)
    if changed and not cfg.train.resume_anyway:
        raise OptionError(
            f"{place}: options that shape training are not those the run began with: {'; '.join(changed)}. Change them "
            "back, choose another output_dir, or set resume_anyway: true"
        )


def _refuse_strangers(folder: Path) -> None:
    """Nothing is overwritten: a folder without `run.json` may hold files, but none of the names a run writes."""
    taken = [name for name in WRITTEN if (folder / name).exists()] + [p.name for p in checkpoints.every(folder)]
    if taken and FACTS in taken:
        raise OptionError(
            f"output_dir: {folder / FACTS} can't be read, so which run the folder holds can't be told; choose another "
            "output_dir, or set overwrite_output_dir: true to replace it"
        )
    if taken and not _is_remains(folder):
        raise OptionError(
            f"output_dir: {folder} holds {', '.join(taken[:3])} of something else; choose another output_dir, or set "
            "overwrite_output_dir: true to replace them"
        )


def _is_remains(folder: Path) -> bool:
    """True for a run that was killed before `run.json`: only its config is there."""
    return not any((folder / name).exists() for name in WRITTEN if name != CONFIG) and not checkpoints.every(folder)


def _write_config(folder: Path, cfg: Config, origins: Mapping[str, str]) -> None:
    lines = ["# Every effective option of this run and where it came from.", ""]
    for name, value in cfg.flat().items():
        if not is_secret(name):
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}  # {origins.get(name, 'default')}")
    files.write_beside(folder / CONFIG, redacted("\n".join(lines) + "\n"))


def _commit() -> str | None:
    """The git commit of the working directory, when it is in a repository and git is installed."""
    git = shutil.which("git")
    if git is None:
        return None
    asked = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=False)
    return asked.stdout.strip() or None


def _who_runs(cfg: Config) -> dict[str, Any]:
    libraries = ("tunesmith", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")
    versions = {}
    for library in libraries:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": now(),
        "machine": unsaid.machine(),
        "commit": _commit(),
        "python": sys.version.split()[0],
        "versions": versions,
        "options": shaping.options(cfg),
        "length": shaping.length(cfg),
    }
