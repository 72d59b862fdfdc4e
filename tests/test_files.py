"""A reader finds the old file or the new one, never a part of either."""

import hashlib
import os
from pathlib import Path

import pytest

from tunesmith.files import (
    folder_beside,
    open_beside,
    publish_files,
    publish_folder,
    remove_leftovers,
    sha256_of,
    write_beside,
)


def test_text_and_bytes_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "结果.json"
    write_beside(path, "old, and longer")
    write_beside(path, "新\n")
    assert path.read_bytes() == "新\n".encode()
    write_beside(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["结果.json"]


def test_a_file_written_piece_by_piece_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="midway"), open_beside(path) as file:
        file.write(b"1\n")
        raise ValueError("midway")
    assert os.listdir(tmp_path) == []
    with open_beside(path) as file:
        file.write(b"1\n")
        assert not path.exists()
        file.write(b"2\n")
    assert path.read_bytes() == b"1\n2\n" and os.listdir(tmp_path) == ["rows.jsonl"]


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


def test_files_are_published_among_others(tmp_path: Path) -> None:
    final = tmp_path / "run"
    (final / "deep").mkdir(parents=True)
    (final / "notes.txt").write_text("foreign")
    (final / "deep" / "weights").write_text("old")
    filled = folder_beside(tmp_path / "model")
    (filled / "deep").mkdir()
    (filled / "deep" / "weights").write_text("new")
    (filled / "config.json").write_text("{}")
    publish_files(filled, final)
    held = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert held == {"run/notes.txt": "foreign", "run/deep/weights": "new", "run/config.json": "{}"}
    assert os.listdir(tmp_path) == ["run"]
