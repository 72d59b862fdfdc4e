"""A folder belongs to one process at a time, whatever the file system offers."""

import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path

import pytest

from tunesmith.jobs import folder
from tunesmith.log import RunError


def without_locks(descriptor: object, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_a_second_run_names_the_first(tmp_path: Path) -> None:
    first = folder._lock(tmp_path)
    with pytest.raises(RunError, match=rf"in use by process {os.getpid()} on {socket.gethostname()}, started 20"):
        folder._lock(tmp_path)
    first.close()
    folder._lock(tmp_path).close()


def test_a_copied_lock_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    held = folder._lock(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    folder._lock(tmp_path / "two").close()
    held.close()


def test_without_locks_a_living_process_is_named_and_a_dead_one_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", without_locks)
    lock = tmp_path / folder.LOCK
    lock.write_text(f"process {os.getppid()} on {socket.gethostname()}, started 2026-01-01 00:00:00\n")
    with pytest.raises(RunError, match=f"in use by process {os.getppid()}"):
        folder._lock(tmp_path)
    lock.write_text(f"process {2**22 + 1} on {socket.gethostname()}, started 2026-01-01 00:00:00\n")
    folder._lock(tmp_path).close()
    assert "has no locks" in capsys.readouterr().err
