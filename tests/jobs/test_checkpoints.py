"""Whether a checkpoint is whole is told from its manifest, for every way of damaging it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.jobs import checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-10"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "inner" / "state").write_bytes(b"abc")
    checkpoints.write_manifest(folder)
    return folder


def test_a_whole_one_has_no_damage(checkpoint: Path) -> None:
    assert checkpoints.damage(checkpoint) is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "weights").unlink(), "weights is missing"),
        (lambda folder: (folder / "weights").write_bytes(b"0123"), "weights has 4 bytes instead of 10"),
        (lambda folder: (folder / "weights").write_bytes(b"0123456780"), "weights is not what was written"),
        (lambda folder: (folder / "inner" / "state").write_bytes(b""), "inner/state has 0 bytes instead of 3"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "its manifest.json can't be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "its manifest.json can't be read"),
    ],
)
def test_damage_is_named(checkpoint: Path, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(checkpoint)
    assert checkpoints.damage(checkpoint) == reason


def test_the_newest_whole_one_is_found_and_damaged_ones_are_told(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (9, 100):
        other = checkpoint.with_name(f"checkpoint-{step}")
        other.mkdir()
        checkpoints.write_manifest(other)
    (checkpoint.with_name("checkpoint-100") / "manifest.json").unlink()
    assert checkpoints.newest_whole(checkpoint.parent) == checkpoint
    assert "checkpoint-100: skipped, it is not whole: it has no manifest.json" in capsys.readouterr().err


def test_they_are_ordered_by_step_and_strangers_are_no_checkpoints(checkpoint: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-100", "checkpoint-x", "checkpoint-7.old", ".checkpoint-8"):
        checkpoint.with_name(name).mkdir()
    assert [p.name for p in checkpoints.every(checkpoint.parent)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]


def test_only_the_newest_are_kept(checkpoint: Path) -> None:
    for step in (20, 30):
        checkpoint.with_name(f"checkpoint-{step}").mkdir()
    checkpoints.keep_newest(checkpoint.parent, None)
    assert len(checkpoints.every(checkpoint.parent)) == 3
    checkpoints.keep_newest(checkpoint.parent, 2)
    assert [p.name for p in checkpoints.every(checkpoint.parent)] == ["checkpoint-20", "checkpoint-30"]
