"""A reader finds the old file or the new one, never a part of either."""

import hashlib
import os
from pathlib import Path

import pytest

from tunesmith.files import (
    MANIFEST,
    checkpoints,
    damage,
    folder_beside,
    publish_folder,
    remove_folder,
    remove_leftovers,
    sha256_of,
    write_beside,
    write_manifest,
)


def test_text_and_bytes_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "结果.json"
    write_beside(path, "old, and longer")
    write_beside(path, "新\n")
    assert path.read_bytes() == "新\n".encode()
    write_beside(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["结果.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_beside(path, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_beside(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_new_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write_beside(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_is_published_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    final = tmp_path / "checkpoint-5"
    for content in ("one", "two"):
        filled = folder_beside(final)
        (filled / "deep").mkdir()
        (filled / "deep" / "weights").write_text(content)
        publish_folder(filled, final)
        assert (final / "deep" / "weights").read_text() == content
    assert os.listdir(tmp_path) == ["checkpoint-5"]


def test_leftovers_go_and_foreign_files_stay(tmp_path: Path) -> None:
    (folder_beside(tmp_path / "checkpoint-10") / "weights").write_text("half")
    (tmp_path / ".state.json.0123abcd.partial").write_text("{")
    (tmp_path / ".hidden").write_text("foreign")
    (tmp_path / "notes.partial").write_text("foreign")
    assert len(remove_leftovers(tmp_path)) == 2
    assert sorted(os.listdir(tmp_path)) == [".hidden", "notes.partial"]


def test_a_replacement_that_was_killed_halfway_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-5.replaced").mkdir()
    (tmp_path / ".checkpoint-5.replaced" / "weights").write_text("old")
    assert remove_leftovers(tmp_path) == []
    assert (tmp_path / "checkpoint-5" / "weights").read_text() == "old"


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "weights").write_bytes(b"12345")
    write_manifest(path)
    return path


def test_a_manifest_finds_every_damage(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 1)
    assert damage(path) is None
    weights = path / "deep" / "weights"
    weights.write_bytes(b"12346")
    assert damage(path) == "holds a deep/weights that has changed since it was written"
    weights.write_bytes(b"1234")
    assert damage(path) == "holds 4 bytes of deep/weights, not 5"
    weights.unlink()
    assert damage(path) == "lacks deep/weights"
    (path / MANIFEST).write_text('{"files": {"a"')
    assert damage(path) == f"has an unreadable {MANIFEST}"
    (path / MANIFEST).unlink()
    assert damage(path) == f"has no {MANIFEST}"


def test_checkpoints_are_listed_by_step_and_foreign_folders_are_not(tmp_path: Path) -> None:
    ours = [checkpoint(tmp_path, step) for step in (9, 10, 100)]
    (tmp_path / "checkpoint-50").mkdir()
    (tmp_path / "checkpoint-final").mkdir()
    assert checkpoints(tmp_path) == ours
    assert checkpoints(tmp_path / "absent") == []


def test_a_removed_folder_is_gone(tmp_path: Path) -> None:
    remove_folder(checkpoint(tmp_path, 5))
    assert os.listdir(tmp_path) == []
