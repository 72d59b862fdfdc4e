"""A plan tells what a run would do and what is wrong with it, loads no weights and writes nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tunesmith.cli import main

Plan = Callable[..., int]


@pytest.fixture
def plan(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """`plan(lora_rank=4, ...)` plans a run in `tmp_path/run` and returns the exit code.  Weights can't be loaded."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    rows = [{"instruction": f"what is {n}?", "output": f"{n} is a number" * (n + 1)} for n in range(9)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)

    def run(*words: str, command: str = "plan", **options: object) -> int:
        wanted = {
            "model_name_or_path": tiny_model, "dataset": tmp_path / "rows.json", "template": "qwen",
            "output_dir": tmp_path / "run", "compute_type": "fp32", "disable_tqdm": True,
        }  # fmt: skip
        return main([command, *(f"{key}={value}" for key, value in (wanted | options).items()), *words])

    return run


@pytest.mark.parametrize("by", [{"command": "plan"}, {"command": "train", "do_train": False}])
def test_a_plan_tells_all_and_writes_nothing(
    plan: Plan, by: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"max_steps": 40, "save_steps": 10, "val_size": 2, "save_best_model": True, "early_stopping_steps": 3}
    assert plan(**options, **by) == 0
    told = capsys.readouterr().out
    for line in (
        "rows kept     7 to train on, 2 to evaluate",
        "steps         1 an epoch of 8 rows each, 40 in all",
        "  + assistant   0 is a number",
        "saves         the model at the end, checkpoints every 10 steps: 4",
        "evaluates     every 10 steps: loss, ppl",
        "best          the lowest eval_loss is the final model; ends after 3 evaluations without a better one",
        f"writes to     {tmp_path / 'run'}",
        "device        cpu, computing in fp32, attention by sdpa",
    ):
        assert line in told
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_a_plan_finds_what_is_wrong(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, code, told in (
        ({"lora_target": "q_porj"}, 2, "'q_porj'"),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 3}, 2, "3 layers are asked for, the model has 2"),
        ({"compute_type": "fp16"}, 2, "compute_type: fp16 does not work on this cpu"),
        ({"dataset": "nothing.json"}, 2, "there is no file nothing.json"),
        ({"model_name_or_path": tmp_path}, 2, "config.json"),
        ({"adapter_name_or_path": tmp_path}, 2, "holds no adapter (no adapter_config.json)"),
        ({"save_best_model": True}, 2, "needs evaluation data"),
        ({"val_size": 3, "save_best_model": True, "metric_for_best_model": "f2"}, 2, "'f2' is not evaluated"),
        ({"global_batch_size": 8, "per_device_train_batch_size": 3}, 2, "is no multiple"),
        ({"flash_attn": "fa2", "device": "cpu"}, 2, "flash_attn: fa2 is not available here: it needs a GPU"),
        ({"optim_args": "betta=1"}, 2, "optim_args: AdamW has no argument 'betta'"),
        ({"lr_scheduler_kwargs": '{"cycles": 2}'}, 2, "lr_scheduler_kwargs: linear has no argument 'cycles'"),
        ({"device": "cuda"}, 2, "torch finds no GPU here"),
    ):
        assert plan(**options) == code
        assert told in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert plan() == 2
    assert "holds config.json of something else" in capsys.readouterr().err


def test_a_plan_reads_prepared_rows_and_adds_none(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = tmp_path / "prepared"
    assert plan(tokenized_path=prepared) == 0
    assert not prepared.exists()
    prepared.mkdir()
    (prepared / "train").mkdir()
    (prepared / "train" / "mine.txt").write_text("")
    assert plan(tokenized_path=prepared) == 2
    assert "holds files that are no prepared data" in capsys.readouterr().err


def test_a_stream_can_be_planned(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(streaming=True, max_steps=3) == 0
    assert "steps         3 of 8 rows each" in capsys.readouterr().out
