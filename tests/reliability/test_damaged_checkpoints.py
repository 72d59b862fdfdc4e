"""Checkpoints that lost a file, or bits of one: skipped with a line that names the file, refused when named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from exact import Run

from tunesmith.jobs import checkpoints, folder
from tunesmith.log import OptionError, RunError


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "flipped": flip,
    "emptied": lambda file: file.write_bytes(b""),
    "a folder": become_folder,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with files of the names that a run writes, one of them in a folder."""
    checkpoint = tmp_path_factory.mktemp("saved") / "checkpoint-4"
    (checkpoint / "deep").mkdir(parents=True)
    for name in ("trained.safetensors", "optimizer.safetensors", "optimizer.json", "resume.json", "deep/more.json"):
        (checkpoint / name).write_bytes(name.encode() * 40)
    checkpoints.write_manifest(checkpoint)
    return checkpoint


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_every_file_is_found_and_named(saved: Path, tmp_path: Path, damage: str) -> None:
    for file in sorted(path for path in saved.rglob("*") if path.is_file()):
        copy = shutil.copytree(saved, tmp_path / file.name / saved.name)
        assert checkpoints.damage(copy) is None
        DAMAGES[damage](copy / file.relative_to(saved))
        reason = checkpoints.damage(copy)
        assert reason is not None, file
        if file.name != checkpoints.MANIFEST:
            assert file.relative_to(saved).as_posix() in reason


def test_a_flipped_bit_anywhere_in_the_manifest_raises_nothing(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / saved.name)
    manifest = copy / checkpoints.MANIFEST
    whole = manifest.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 16):
            manifest.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            assert checkpoints.damage(copy) or whole[place : place + 1].isspace()


def test_the_older_one_is_used_and_the_damaged_one_goes(run: Run, capsys: pytest.CaptureFixture) -> None:
    place = run("run", save_steps=2, save_total_limit=2)
    (place / "checkpoint-6" / "resume.json").write_text("{}")
    folder.add_facts(place, status="running")
    run("run", save_steps=5, save_total_limit=1)
    said = capsys.readouterr().err
    assert "checkpoint-6: skipped, it is not whole: resume.json has 2 bytes instead of" in said
    assert [path.name for path in checkpoints.every(place)] == ["checkpoint-6"]
    assert checkpoints.damage(place / "checkpoint-6") is None


def test_a_damaged_one_that_is_named_is_refused(run: Run) -> None:
    place = run("run", save_steps=2)
    (place / "checkpoint-4" / checkpoints.MANIFEST).unlink()
    with pytest.raises(OptionError, match=r"checkpoint-4 is not whole: it has no manifest\.json"):
        run("other", resume_from_checkpoint=place / "checkpoint-4")


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew_in_silence(run: Run) -> None:
    place = run("run", save_steps=3)
    for checkpoint in checkpoints.every(place):
        flip(checkpoint / "trained.safetensors")
    folder.add_facts(place, status="running")
    with pytest.raises(
        RunError, match=r"holds 2 checkpoints and none is whole.*overwrite_output_dir: true to start anew"
    ):
        run("run", save_steps=3)
    assert len(checkpoints.every(place)) == 2
    run("run", save_steps=3, overwrite_output_dir=True)


def test_checkpoints_of_a_course_that_was_left_are_not_gone_on_from(run: Run) -> None:
    place = run("run", save_steps=2)
    run("run", save_steps=3, max_steps=3, resume_from_checkpoint=place / "checkpoint-2")
    assert [path.name for path in checkpoints.every(place)] == ["checkpoint-2", "checkpoint-3"]
