"""Runs that are stopped, killed, damaged or go wrong: what is left, what is said, and that the same command goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.cli import main
from tunesmith.jobs import checkpoints
from tunesmith.jobs import folder as runs
from tunesmith.jobs.start import train_command
from tunesmith.log import OptionError, RunError

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def command(tiny_model: Path, rows: Path) -> list[str]:
    """A run of 30 steps that saves every 10, as words of a command line."""
    options = {
        "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": rows, "template": "qwen",
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 30, "learning_rate": 1e-2,
        "lora_dropout": 0.2, "compute_type": "fp32", "logging_steps": 2, "save_steps": 10, "plot_loss": True,
    }  # fmt: skip
    return [f"{name}={value}" for name, value in options.items()]


@pytest.fixture(scope="module")
def straight(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody stops."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert train_command([*command, f"output_dir={folder}"]) == 0
    return folder


def start(command: list[str], folder: Path, repo: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunesmith", "train", *command, f"output_dir={folder}"],
        env=os.environ | {"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Return once the run's log has a row of `step` or later."""
    log = folder / "trainer_log.jsonl"
    while process.poll() is None:
        lines = log.read_text().splitlines() if log.exists() else []
        if lines and lines[-1].endswith("}") and json.loads(lines[-1])["current_steps"] >= step:
            return
        time.sleep(0.005)
    raise AssertionError(process.communicate()[1])


def untimed(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("elapsed_time", "remaining_time", "throughput")} for row in rows]


def assert_same(one: Path, other: Path) -> None:
    first, second = (load_file(run / "adapter_model.safetensors") for run in (one, other))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert untimed(one) == untimed(other)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_the_same_command_goes_on(
    command: list[str], straight: Path, tmp_path: Path, repo: Path, signum: int, code: int
) -> None:
    stopped = tmp_path / "stopped"
    process = start(command, stopped, repo)
    wait_for_step(stopped, 4, process)
    process.send_signal(signum)
    _, said = process.communicate()
    assert process.returncode == code, said
    facts = runs.read_facts(stopped)
    assert facts["status"] == "interrupted"
    assert "the same command goes on there" in said
    assert "Traceback" not in said
    assert (stopped / "training_loss.png").exists()
    assert train_command([*command, f"output_dir={stopped}"]) == 0
    assert_same(straight, stopped)


@pytest.mark.slow
def test_a_kill_loses_at_most_what_came_after_the_last_checkpoint(
    command: list[str], straight: Path, tmp_path: Path, repo: Path
) -> None:
    killed = tmp_path / "killed"
    for step in (2, 14, 24):  # before the first checkpoint, and after each of the others
        process = start(command, killed, repo)
        wait_for_step(killed, step, process)
        process.kill()
        process.communicate()
    assert train_command([*command, f"output_dir={killed}"]) == 0
    assert_same(straight, killed)


@pytest.mark.slow
def test_a_signal_stops_all_processes_of_a_run(command: list[str], tmp_path: Path, repo: Path) -> None:
    folder = tmp_path / "two"
    process = start([*command, "nproc_per_node=2"], folder, repo)
    wait_for_step(folder, 2, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 143, said
    assert said.count("the same command goes on there") == 1
    assert runs.read_facts(folder)["status"] == "interrupted"


def test_a_damaged_checkpoint_is_skipped_and_the_one_before_it_used(
    train: Train, capsys: pytest.CaptureFixture
) -> None:
    folder = train("run", save_steps=2)
    newest = folder / "checkpoint-6" / "trained.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    runs.add_facts(folder, status="running")
    train("run", save_steps=2)
    said = capsys.readouterr().err
    assert "checkpoint-6: skipped, it is not whole: trained.safetensors is not what was written" in said
    assert "going on from" in said
    assert "checkpoint-4" in said


def test_a_damaged_checkpoint_that_is_named_is_refused(train: Train) -> None:
    folder = train("run", save_steps=2)
    (folder / "checkpoint-4" / "optimizer.json").unlink()
    with pytest.raises(OptionError, match=r"checkpoint-4 is not whole: optimizer.json is missing"):
        train("other", resume_from_checkpoint=folder / "checkpoint-4")


def test_a_finished_run_is_not_overwritten(train: Train) -> None:
    folder = train("run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(OptionError, match="holds a finished run; set overwrite_output_dir: true"):
        train("run")
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (folder / "mine.txt").write_text("kept")
    train("run", overwrite_output_dir=True, learning_rate=2e-3)
    assert (folder / "mine.txt").read_text() == "kept"


def test_a_foreign_model_is_not_overwritten(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "adapter_model.safetensors").write_text("somebody's")
    with pytest.raises(OptionError, match=r"holds adapter_model.safetensors of something else"):
        train("run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["adapter_model.safetensors"]


def test_going_on_with_other_options_or_data_is_refused_by_name(train: Train, rows: Path, tmp_path: Path) -> None:
    folder = train("run", save_steps=2)
    runs.add_facts(folder, status="running")
    with pytest.raises(OptionError, match=r"learning_rate was 0.01, is 0.02.*resume_anyway"):
        train("run", save_steps=2, learning_rate=2e-2)
    other = tmp_path / "other_rows"
    shutil.copytree(rows, other)
    talk = json.loads((other / "talk.json").read_text())
    talk[7]["output"] += "!"
    (other / "talk.json").write_text(json.dumps(talk))
    with pytest.raises(OptionError, match="the data is not what the run began with"):
        train("run", save_steps=2, dataset_dir=other)
    train("run", save_steps=2, dataset_dir=other, resume_anyway=True, num_train_epochs=3)


@pytest.mark.parametrize("shared", [{"lora_dropout": 0.2}, {"finetuning_type": "full"}])
def test_a_run_goes_on_with_activations_made_again_and_ends_with_the_same_bits(
    train: Train, shared: dict[str, Any]
) -> None:
    shared = {"save_steps": 1, "lr_scheduler_type": "constant"} | shared
    straight = train("straight", max_steps=4, **shared)
    changed = train("changed", max_steps=1, **shared)
    for steps, asked in ((2, True), (3, "selective"), (4, "offload")):
        train("changed", max_steps=steps, gradient_checkpointing=asked, **shared)
    first, second = ((run / "checkpoint-4" / "trained.safetensors").read_bytes() for run in (straight, changed))
    assert first == second


def test_going_on_with_another_stream_is_refused(train: Train, rows: Path, tmp_path: Path) -> None:
    shared = {"save_steps": 2, "streaming": True, "max_steps": 4}
    folder = train("run", **shared)
    runs.add_facts(folder, status="running")
    with pytest.raises(OptionError, match="buffer_size was 16384, is 5"):
        train("run", **shared, buffer_size=5)
    other = tmp_path / "other_rows"
    shutil.copytree(rows, other)
    talk = json.loads((other / "talk.json").read_text())
    (other / "talk.json").write_text(json.dumps([*talk, talk[0]]))
    with pytest.raises(OptionError, match="the data is not what the run began with"):
        train("run", **shared, dataset_dir=other)
    train("run", **shared | {"max_steps": 6}, dataset_dir=other, resume_anyway=True)


def test_going_on_with_other_rows_in_a_step_is_refused(train: Train) -> None:
    folder = train("run", save_steps=2)
    position = json.loads((folder / "checkpoint-6" / "resume.json").read_text())
    (folder / "checkpoint-6" / "resume.json").write_text(json.dumps(position | {"step_rows": 16}))
    checkpoints.write_manifest(folder / "checkpoint-6")
    runs.add_facts(folder, status="running")
    with pytest.raises(OptionError, match="the run's steps had 16 rows, now they have 8"):
        train("run", save_steps=2)


def test_a_folder_in_use_is_refused_naming_the_process(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    held = runs._lock(tmp_path / "run")
    with pytest.raises(RunError, match=f"is in use by process {os.getpid()} on "):
        train("run")
    held.close()
    train("run")


def test_a_learning_rate_beyond_reason_stops_the_run_and_no_non_finite_weight_is_written(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(
        RunError, match=r"step \d+: the (loss|gradient).*Rows of this step: talk.json row \d+"
    ) as failure:
        train(
            "run",
            finetuning_type="full",
            learning_rate=1e9,
            weight_decay=1e3,
            save_steps=1,
            max_grad_norm=0,
            optim="sgd",
            plot_loss=True,
        )
    assert "last good checkpoint" in str(failure.value)
    assert runs.read_facts(tmp_path / "run")["status"] == "failed"
    for path in (tmp_path / "run").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values() if tensor.is_floating_point())


def test_rows_of_a_stream_are_named_when_a_number_is_not_finite(train: Train) -> None:
    with pytest.raises(RunError, match=r"Rows of this step: talk.json row \d+, talk.json row \d+"):
        train(
            "run",
            finetuning_type="full",
            learning_rate=1e9,
            weight_decay=1e3,
            max_grad_norm=0,
            optim="sgd",
            streaming=True,
            max_steps=20,
        )


def test_a_non_finite_base_weight_is_named_before_training(train: Train, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj.weight"):
        train("run", model_name_or_path=tmp_path / "broken")


def test_only_the_newest_checkpoints_are_kept(train: Train) -> None:
    folder = train("run", save_steps=1, save_total_limit=2)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-5", "checkpoint-6"]


def test_a_plan_reads_everything_and_writes_nothing(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train("run", do_train=False)
    assert not (tmp_path / "run").exists()
    assert "trained" in capsys.readouterr().out


def test_the_run_folder_holds_what_users_expect(train: Train) -> None:
    folder = train("run", plot_loss=True, save_steps=4, val_size=3, include_num_input_tokens_seen=True)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "generation_config.json", "trainer_state.json", "trainer_log.jsonl", "train_results.json",
        "eval_results.json", "all_results.json", "training_loss.png", "README.md", "config.yaml", "run.json", "run.lock",
        "events.jsonl", "run.log", "checkpoint-4", "checkpoint-6",
    }  # fmt: skip
    rows = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {
        "current_steps", "total_steps", "loss", "lr", "epoch", "percentage", "elapsed_time", "remaining_time",
        "throughput", "total_tokens",
    }  # fmt: skip
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == 6
    results = json.loads((folder / "all_results.json").read_text())
    assert {"train_loss", "eval_loss", "epoch", "num_input_tokens_seen"} <= set(results)


def test_the_written_config_is_a_config_that_trains_the_same(train: Train, tmp_path: Path) -> None:
    folder = train("run")
    written = (folder / "config.yaml").read_text()
    assert "learning_rate: 0.01  # command line" in written
    (tmp_path / "again.yaml").write_text(written)
    assert train_command([str(tmp_path / "again.yaml"), f"output_dir={tmp_path / 'again'}"]) == 0
    assert_same(folder, tmp_path / "again")


def test_errors_are_one_line_on_standard_error(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert (
        main(["train", f"model_name_or_path={tmp_path / 'nothing'}", "dataset=x", f"output_dir={tmp_path / 'o'}"]) == 2
    )
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert not (tmp_path / "o").exists()


def test_debug_shows_the_first_rows_and_what_of_them_is_trained(
    train: Train, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_DEBUG", "")
    train("run", debug=True, do_train=False)
    said = capsys.readouterr().err
    assert "note: talk.json row 1: read as '<|im_start|>system" in said
    assert "<|im_end|>\\n'" in said.split("row 1: ")[1].split(", trained ")[1]
