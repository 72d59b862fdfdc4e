"""What is said when there is no room, what goes on all the same, and that a killed export leaves nothing for ever."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from exact import Run
from faulty import Fault, Faulty

from tunesmith import files
from tunesmith.train.telling import events
from tunesmith.train.telling.events import Record


def test_the_run_says_what_was_needed_and_goes_on_once_there_is_room(
    faulty: Faulty, tiny_model: Path, talks: Path, tmp_path: Path
) -> None:
    options = {
        "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": talks, "template": "qwen", "output_dir": "run",
        "max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 2, "compute_type": "fp32", "disable_tqdm": True,
        "tokenized_path": tmp_path / "rows",
    }  # fmt: skip
    words = ["train", *(f"{name}={value}" for name, value in options.items())]
    ended = faulty.run(tmp_path, *words, fault=Fault(room=300_000, error=errno.ENOSPC))
    assert ended.code == 1, ended.said
    assert "can't be written: No space left on device" in ended.said and "bytes were needed" in ended.said
    assert "internal error" not in ended.said and "Traceback" not in ended.said
    assert not list((tmp_path / "run").glob(".*.partial"))
    ended = faulty.run(tmp_path, *words)
    assert ended.code == 0, ended.said


def test_planned_checkpoints_that_will_not_fit_are_told_of(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda folder: 200_000)
    run("run", save_steps=2)
    assert "warning: save_steps: 3 checkpoints of about " in capsys.readouterr().err
    run("one", save_steps=6)
    assert "save_steps" not in capsys.readouterr().err


def test_a_log_that_could_not_be_written_is_whole_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    append, write = events._append, events.write_beside

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Record(tmp_path, total_steps=4, history=[]) as record:
        for step, works in enumerate([True, False, False, True], start=1):
            monkeypatch.setattr(events, "_append", append if works else full)
            monkeypatch.setattr(events, "write_beside", write if works else full)
            record.log(step, {"loss": 1.0}, seconds=1.0)
    assert [row["current_steps"] for row in events.read_rows(tmp_path / "trainer_log.jsonl")] == [1, 2, 3, 4]
    numbers = [row["number"] for row in events.read_rows(tmp_path / "events.jsonl")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert capsys.readouterr().err.count("a log can't be written: No space left on device") == 1


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_killed_export_is_made_again_and_leaves_nothing(
    faulty: Faulty, tiny_model: Path, tmp_path: Path, part: float
) -> None:
    words = ["export", f"model_name_or_path={tiny_model}", "export_dir=made/model"]
    whole = faulty.run(tmp_path, *words)
    assert whole.code == 0, whole.said
    expected = {path.name: path.read_bytes() for path in (tmp_path / "made" / "model").iterdir()}
    shutil.rmtree(tmp_path / "made")
    killed = faulty.run(tmp_path, *words, fault=Fault(at=int(part * whole.operations), signal=signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    again = faulty.run(tmp_path, *words)
    assert again.code == 0, again.said
    assert {path.name: path.read_bytes() for path in (tmp_path / "made" / "model").iterdir()} == expected
    assert os.listdir(tmp_path / "made") == ["model"], json.dumps(os.listdir(tmp_path / "made"))
