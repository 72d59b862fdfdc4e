"""Checkpoints that lost a file, or bits of one: skipped with a line that names the file, refused when named."""

import json
import os
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


def test_a_manifest_that_no_run_wrote_is_refused_and_not_waited_for(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / saved.name)
    manifest = copy / checkpoints.MANIFEST
    for content in (
        "[" * 99_999,
        '{"files": {"/dev/zero": {"bytes": 0, "sha256": ""}}}',
        '{"files": {"../x": {"bytes": 0}}}',
    ):
        manifest.write_text(content)
        assert checkpoints.damage(copy) == "its manifest.json can't be read"
    manifest.unlink()
    os.mkfifo(manifest)
    assert checkpoints.damage(copy) == "its manifest.json can't be read"


def rewritten(name: str, content: str) -> Callable[[Path], object]:
    return lambda checkpoint: (checkpoint / name).write_text(content)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "of a later version": (rewritten("resume.json", '{"step": 1, "moon": "full"}'), "moon is not what"),
    "with words for numbers": (rewritten("resume.json", '{"step": "one"}'), "step is not what"),
    "cut": (rewritten("resume.json", "{"), "resume.json"),
    "without a schedule": (rewritten("optimizer.json", "{}"), "does not fit this run"),
    "without random states": (lambda checkpoint: (checkpoint / "random.safetensors").unlink(), "does not fit this run"),
}


def test_a_checkpoint_that_is_whole_and_of_another_hand_ends_with_a_sentence(train) -> None:
    assert train(save_strategy="steps", save_steps=1).code == 0
    shutil.copytree("out", "kept")
    for how, (write, said) in FOREIGN.items():
        shutil.rmtree("out")
        shutil.copytree("kept", "out")
        write(Path("out/checkpoint-1"))
        checkpoints.write_manifest(Path("out/checkpoint-1"))
        ended = train(save_strategy="steps", save_steps=1, max_steps=2)
        assert ended.code == 1 and said in ended.err and "internal error" not in ended.err, (how, ended)


FACTS = ("[1]", "[" * 99_999, "{", "")


def test_what_else_lies_in_the_folder_is_told_before_anything_is_loaded(train) -> None:
    out = Path("out")
    for name in ("events.jsonl", "run.log", "config.yaml", "tokenizer.json", "run.lock"):
        for make in (Path.mkdir, os.mkfifo):
            out.mkdir()
            make(out / name)
            for replace in ("true", "false"):
                ended = train(overwrite_output_dir=replace)
                assert ended.code == 2 and f"{name} is no file" in ended.err, ended
            shutil.rmtree(out)
    out.mkdir()
    for content in FACTS:
        (out / "run.json").write_text(content)
        ended = train()
        assert ended.code == 2 and "run.json can't be read" in ended.err, ended


def test_facts_and_locks_of_another_hand_do_not_stop_a_run(train) -> None:
    machines = (5, {"boot": 5, "killed": "x", "memory_bytes": "x"})
    assert train(save_strategy="steps", save_steps=1).code == 0
    for steps, machine in enumerate(machines, start=2):
        facts = json.loads(Path("out/run.json").read_text()) | {"status": "running", "machine": machine}
        Path("out/run.json").write_text(json.dumps(facts))
        Path("out/events.jsonl").write_text('{"kind": "log", "step": "x", "resident_bytes": "y"}\n' + "[" * 9999)
        Path("out/run.lock").write_bytes(b"\xff\xfe\0" * 9999)
        os.symlink("nowhere", f"out/checkpoint-{steps}")
        ended = train(save_strategy="steps", save_steps=1, max_steps=steps)
        assert ended.code == 0 and Path(f"out/checkpoint-{steps}/resume.json").is_file(), ended


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
