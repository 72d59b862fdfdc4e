"""Equalities that a trainer must keep: accumulation, processes, resuming, seeds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.data.sample import Batch
from tunesmith.jobs import folder as runs
from tunesmith.train.runtime import Runtime

Train = Callable[..., Path]

TIMES = ("elapsed_time", "remaining_time", "throughput")


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = [*run.glob("*model*.safetensors")]
    assert len(found) == 1
    return load_file(found[0])


def log_rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert log_rows(one) == log_rows(other)


def assert_float_precision(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    for name, tensor in first.items():
        torch.testing.assert_close(
            tensor, second[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("method", ["full", "lora"])
def test_accumulation_is_one_large_batch(train: Train, method: str) -> None:
    """1 x 16 = 2 x 8 = 16 x 1, the short last window of 21 rows included.  SGD, so that weights differ as gradients do."""
    shared = {"finetuning_type": method, "optim": "sgd", "learning_rate": 0.5, "lora_rank": 4}
    whole = train("16x1", per_device_train_batch_size=16, gradient_accumulation_steps=1, **shared)
    for size, accumulation in ((1, 16), (2, 8)):
        name = f"{size}x{accumulation}"
        parts = train(name, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, **shared)
        assert_float_precision(whole, parts)
        losses = [[row["loss"] for row in log_rows(run)] for run in (whole, parts)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("more", [{}, {"packing": True, "cutoff_len": 128}, {"streaming": True, "max_steps": 3}])
def test_what_rows_begin_with_alike_may_be_computed_once(
    train: Train, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    shared = {"finetuning_type": "full", "optim": "sgd", "learning_rate": 0.5, "per_device_train_batch_size": 4, **more}
    computed, made = [0, 0], list[Path]()
    for number, left_out in enumerate(("shared_prefix", "[]")):

        def seen(batch: Batch, number: int = number) -> Batch:
            computed[number] += batch.input_ids.numel()
            return batch

        monkeypatch.setattr(Runtime, "pinned", lambda self, batch, seen=seen: seen(batch))
        made.append(train(str(number), disable_speedups=left_out, **shared))
    assert_float_precision(*made)
    assert computed[1] < 0.7 * computed[0]


@pytest.mark.parametrize("batching", ["length_grouped", "token_budget"])
def test_accumulation_is_one_large_batch_however_rows_are_chosen(train: Train, batching: str) -> None:
    shared = {"batching": batching, "cutoff_len": 128, "finetuning_type": "full", "optim": "sgd", "learning_rate": 0.5}
    whole = train("4x1", per_device_train_batch_size=4, gradient_accumulation_steps=1, **shared)
    parts = train("1x4", per_device_train_batch_size=1, gradient_accumulation_steps=4, **shared)
    assert_float_precision(whole, parts)


def test_accumulation_is_one_large_batch_of_weighted_and_other_rows(train: Train, tmp_path: Path) -> None:
    """1 x 4 = 2 x 2, evaluation too; and the weights count."""
    rows = [
        {"conversations": [{"from": "human", "value": f"{n} birds"}, {"from": "gpt", "value": f"{n} cats sat"} | said]}
        for n, said in enumerate([{}, {"loss": 0.5}, {"weight": 0.125}, {}, {"loss": 3}, {"loss": 1.0}] * 2)
    ]
    shared = {"dataset": "mine", "dataset_dir": tmp_path, "eval_dataset": "mine", "per_device_eval_batch_size": 5,
              "finetuning_type": "full", "optim": "sgd", "learning_rate": 0.5}  # fmt: skip
    entry = {"file_name": "mine.json", "formatting": "sharegpt"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    whole = train("2x2", per_device_train_batch_size=2, gradient_accumulation_steps=2, **shared)
    parts = train("1x4", per_device_train_batch_size=1, gradient_accumulation_steps=4, **shared)
    assert_float_precision(whole, parts)
    losses = [[row["loss"] for row in log_rows(run) if "loss" in row] for run in (whole, parts)]
    evaluated = [json.loads((run / "eval_results.json").read_text())["eval_loss"] for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and evaluated[0] == pytest.approx(evaluated[1], rel=1e-6)
    for row in rows:
        row["conversations"][1] = {"from": "gpt", "value": row["conversations"][1]["value"]}
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    unweighted = train("unweighted", per_device_train_batch_size=2, gradient_accumulation_steps=2, **shared)
    first, second = weights(whole), weights(unweighted)
    assert any((tensor - second[name]).abs().max() > 1e-4 for name, tensor in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("rows_in_step", [8, 5])
def test_two_processes_are_one(train: Train, run_warm: Callable[..., Any], tmp_path: Path, rows_in_step: int) -> None:
    """Two processes with half the rows each make the same steps; with 5 rows a step one has less to do than the other."""
    size = rows_in_step // 2 or 1
    shared = {"finetuning_type": "full", "optim": "sgd", "learning_rate": 0.5}
    alone = train("alone", per_device_train_batch_size=2 * size, gradient_accumulation_steps=2, **shared)
    options = json.loads((alone / runs.FACTS).read_text())["options"] | {
        "per_device_train_batch_size": size,
        "dataset_dir": str(next(line for line in (alone / "config.yaml").read_text().splitlines() if line.startswith("dataset_dir")).split('"')[1]),
        "output_dir": str(tmp_path / "together"),
        "nproc_per_node": 2,
        "num_train_epochs": 2.0,
        "logging_steps": 1.0,
    }  # fmt: skip
    (tmp_path / "together.json").write_text(json.dumps(options))
    done = run_warm("train", "together.json")
    assert done.returncode == 0, done.stderr
    assert_float_precision(alone, tmp_path / "together")


MODES = {
    "full": {"finetuning_type": "full"},
    "lora with dropout": {"finetuning_type": "lora", "lora_dropout": 0.3, "lora_rank": 4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "bf16": {"finetuning_type": "lora", "compute_type": "bf16"},
    "unshuffled, logged every second step": {"finetuning_type": "lora", "disable_shuffling": True, "logging_steps": 2},
    "packed": {"finetuning_type": "full", "packing": True, "cutoff_len": 256, "gradient_accumulation_steps": 1},
    "packed, lora": {"packing": True, "cutoff_len": 256, "gradient_accumulation_steps": 1, "lora_dropout": 0.3},
    "contaminated": {"packing": "contaminated", "cutoff_len": 256, "gradient_accumulation_steps": 1},
    "rows of like length together": {"finetuning_type": "full", "batching": "length_grouped"},
    "so many tokens at once": {
        "batching": "token_budget",
        "cutoff_len": 128,
        "lora_dropout": 0.3,
        "per_device_train_batch_size": 2,
    },
    "sgd with momentum": {"finetuning_type": "full", "optim": "sgd", "optim_args": '{"momentum": 0.9}'},
    "streamed": {"streaming": True, "max_steps": 6, "buffer_size": 8, "lora_dropout": 0.3},
    "streamed, some rows to evaluate": {"streaming": True, "max_steps": 6, "val_size": 4, "eval_steps": 2},
    "streamed, packed": {
        "streaming": True,
        "max_steps": 6,
        "packing": True,
        "cutoff_len": 256,
        "gradient_accumulation_steps": 1,
    },
    "streamed, so many tokens at once": {
        "streaming": True,
        "max_steps": 6,
        "batching": "token_budget",
        "cutoff_len": 128,
        "per_device_train_batch_size": 2,
    },
    "streamed, prepared by two processes": {
        "streaming": True,
        "max_steps": 6,
        "preprocessing_num_workers": 2,
        "preprocessing_batch_size": 2,
    },
}


@pytest.mark.parametrize("mode", MODES)
def test_resuming_at_every_checkpoint_is_never_having_stopped(
    train: Train, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, the logs too, across the end of an epoch (after step 3) and up to the last step (6); in a stream across
    the ends of groups of rows too."""
    monkeypatch.setattr("tunesmith.data.streaming.stream.GROUP_ROWS", 5)
    monkeypatch.setattr("tunesmith.data.streaming.stream.FILLED_GROUP_ROWS", 13)
    straight = train("straight", save_steps=1, **MODES[mode])
    for step in range(1, 6):
        copy = tmp_path / f"from-{step}"
        shutil.copytree(straight, copy)
        for later in range(step + 1, 7):
            shutil.rmtree(copy / f"checkpoint-{later}")
        runs.add_facts(copy, status="running")
        train(copy.name, save_steps=1, **MODES[mode])
        assert_same_bits(straight, copy)


@pytest.mark.parametrize("mode", ["full", "packed, lora"])
def test_streamed_rows_make_the_steps_of_prepared_ones(train: Train, mode: str) -> None:
    """In the order of the data, up to where an epoch's end gives prepared rows a short step."""
    shared = MODES[mode] | {"disable_shuffling": True, "max_steps": 2}
    before, streamed = train("before", **shared), train("streamed", streaming=True, **shared)
    first, second = weights(before), weights(streamed)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert [row["loss"] for row in log_rows(before)] == [row["loss"] for row in log_rows(streamed)]


@pytest.mark.slow
def test_two_processes_share_a_stream(train: Train, rows: Path, run_warm: Callable[..., Any], tmp_path: Path) -> None:
    """Each reads it and takes its part of every step; stopped and gone on with, they make the same steps still."""
    shared = {"finetuning_type": "full", "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant"}
    shared |= {"streaming": True, "max_steps": 6}
    alone = train("alone", per_device_train_batch_size=4, gradient_accumulation_steps=2, **shared)
    options = json.loads((alone / runs.FACTS).read_text())["options"] | {
        "per_device_train_batch_size": 2, "dataset_dir": str(rows), "output_dir": str(tmp_path / "together"),
        "nproc_per_node": 2, "max_steps": 3, "save_steps": 3.0, "logging_steps": 1.0,
    }  # fmt: skip
    for steps in (3, 6):
        (tmp_path / "together.json").write_text(json.dumps(options | {"max_steps": steps}))
        done = run_warm("train", "together.json")
        assert done.returncode == 0, done.stderr
    assert_float_precision(alone, tmp_path / "together")


def test_the_same_command_twice_gives_the_same_bits(train: Train) -> None:
    assert_same_bits(train("one", lora_dropout=0.2), train("two", lora_dropout=0.2))


def test_logging_saving_and_names_change_nothing(train: Train) -> None:
    plain = train("plain", lora_dropout=0.2)
    talkative = train(
        "talkative", lora_dropout=0.2, save_steps=1, save_total_limit=1, plot_loss=True, report_to="tensorboard",
        include_num_input_tokens_seen=True, preprocessing_num_workers=2, run_name="another",
    )  # fmt: skip
    assert_same_bits(plain, talkative)


def test_evaluating_changes_nothing_that_is_trained(train: Train, rows: Path) -> None:
    plain = train("plain", lora_dropout=0.2)
    evaluated = train("evaluated", lora_dropout=0.2, eval_dataset="talk", eval_steps=2)
    first, second = weights(plain), weights(evaluated)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert json.loads((evaluated / "eval_results.json").read_text())["eval_loss"] > 0


def test_another_seed_is_another_run(train: Train) -> None:
    assert log_rows(train("42"))[0]["loss"] != log_rows(train("43", seed=43))[0]["loss"]


def test_longer_runs_go_on_from_a_finished_one(train: Train) -> None:
    folder = train("run", num_train_epochs=1)
    assert train("run", num_train_epochs=2) == folder
    assert [row["current_steps"] for row in log_rows(folder)] == [1, 2, 3, 4, 5, 6]


LOSSES = [
    6.4172, 6.3478, 6.2884, 6.2209, 6.1865, 6.1412, 6.0801, 6.0339, 6.0146, 5.9561,
    5.9325, 5.9243, 5.8774, 5.8703, 5.8468, 5.8373, 5.8277, 5.8203, 5.8265, 5.8146,
]  # fmt: skip
"""Of 20 steps, to 5 digits.  They change when the arithmetic does, and then somebody must say why."""


def test_a_seeded_run_has_the_losses_it_always_had(train: Train) -> None:
    run = train("run", finetuning_type="full", max_steps=20, learning_rate=1e-3, lr_scheduler_type="cosine")
    assert [round(row["loss"], 4) for row in log_rows(run)] == pytest.approx(LOSSES, abs=1.5e-4)
