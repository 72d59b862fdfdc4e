"""Every parameter of the guide changes what it says it changes: by a plan, or by a run that several share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.cli import main
from tunesmith.config.load import Loaded, load

Run = Callable[..., Path]
GUIDE = r"""llamafactory-cli train --stage sft --do_train True --model_name_or_path {model}
 --preprocessing_num_workers 16 --finetuning_type lora --template default --flash_attn auto --dataset_dir {data}
 --dataset talk --cutoff_len 2048 --learning_rate 5e-05 --num_train_epochs 3.0 --max_samples 100000
 --per_device_train_batch_size 2 --gradient_accumulation_steps 8 --lr_scheduler_type cosine --max_grad_norm 1.0
 --logging_steps 5 --save_steps 100 --warmup_steps 0 --packing False --report_to none
 --output_dir saves\DeepSeek-R1-1.5B-Distill\lora\train_2025-03-26-09-56-13 --bf16 True --plot_loss True
 --trust_remote_code True --ddp_timeout 180000000 --include_num_input_tokens_seen True --optim adamw_torch
 --lora_rank 8 --lora_alpha 16 --lora_dropout 0 --lora_target all"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [{"instruction": f"count to {n}", "output": " ".join(map(str, range(n + 1)))} for n in range(24)]
    (folder / "talk.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({"talk": {"file_name": "talk.json"}}))
    return folder


@pytest.fixture
def words(tiny_model: Path, data: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def write(name: str = "run", **options: Any) -> list[str]:
        wanted = {
            "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": data, "template": "qwen",
            "output_dir": tmp_path / name, "max_steps": 2, "compute_type": "fp32", "disable_tqdm": True,
            "logging_steps": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4,
        }  # fmt: skip
        return [f"{key}={value}" for key, value in (wanted | options).items() if value is not None]

    return write


@pytest.fixture
def plan(words: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a plan with these options says, on both streams."""

    def run(*, code: int = 0, **options: Any) -> str:
        capsys.readouterr()
        assert main(["plan", *words(**options)]) == code
        told = capsys.readouterr()
        return told.out + told.err

    return run


@pytest.fixture
def train(words: Callable[..., list[str]], tmp_path: Path) -> Run:
    def run(name: str = "run", **options: Any) -> Path:
        assert main(["train", *words(name, **options)]) == 0
        return tmp_path / name

    return run


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "trainer_log.jsonl").read_text().splitlines()]


def history(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter_model.safetensors")


def differ(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() != second.keys() or any(not torch.equal(first[name], second[name]) for name in first)


def test_the_guide_s_command_runs_as_it_is_printed(
    tiny_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = GUIDE.format(model=tiny_model, data=data)
    pasted = command.replace("\n", " \\\n# a comment between the options\n")
    (tmp_path / "pasted.txt").write_text(pasted)
    assert main(["train", "pasted.txt"]) == 0
    told = capsys.readouterr()
    folder = tmp_path / "saves/DeepSeek-R1-1.5B-Distill/lora/train_2025-03-26-09-56-13"
    for line in ("output_dir", "no GPU was found", "preprocessing_num_workers", "ddp_timeout"):
        assert line in told.err
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 6
    assert (folder / "training_loss.png").is_file() and (folder / "checkpoint-6").is_dir()
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"], len(adapter["target_modules"])) == (
        8,
        16,
        0,
        7,
    )
    assert {"num_padded_tokens_seen", "num_loss_tokens_seen", "num_input_tokens_seen"} <= history(folder)[0].keys()
    assert main(["train", "pasted.txt"]) == 2
    told = capsys.readouterr()
    for way in ("overwrite_output_dir", "another output_dir", "num_train_epochs"):
        assert way in told.err
    as_yaml = "\n".join(
        f"{name}: {value}" for name, value in (each.split(maxsplit=1) for each in command.split("--")[1:])
    )
    (tmp_path / "my.yaml").write_text(as_yaml)
    assert load(["my.yaml"], "train").config == load(["pasted.txt"], "train").config


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stage": "pt"}, "trained       "),
        ({"model_name_or_path": "nowhere/at-all", "hf_hub_token": None}, "nowhere/at-all"),
        ({"preprocessing_num_workers": 9999}, "instead of 9999, one for each core"),
        ({"template": "default"}, "  + assistant   0"),
        ({"prompt_template": "qwen", "template": None}, "<|im_start|>user"),
        ({"template": "custom", "template_args": '{"user": "Q: {{content}} A: ", "assistant": "{{content}}!"}'}, "Q: "),
        ({"cutoff_len": 90}, "cut           to cutoff_len 90: "),
        ({"cutoff_len": 90, "overflow": "drop"}, "dropped       "),
        ({"cutoff_len": 90, "overflow": "error"}, "over cutoff_len"),
        ({"max_samples": 5}, "rows read     5 (talk 5)"),
        ({"dataset": "talk#7"}, "7 (talk"),
        ({"max_steps": None, "num_epochs": 0.5}, "6 an epoch of 4 rows each, 3 in all"),
        ({"max_steps": None, "num_train_epochs": 2, "batch_size": 8, "per_device_train_batch_size": None}, "6 in all"),
        ({"gradient_accumulation_steps": 3}, "of 12 rows each"),
        ({"global_batch_size": 8}, "of 8 rows each"),
        ({"packing": True, "cutoff_len": 256}, "packed        into rows of 256 tokens"),
        ({"save_steps": 0.5, "max_steps": 8}, "checkpoints every 4 steps: 2"),
        ({"logging_steps": 0.25, "max_steps": 8}, "logs          every 2 steps"),
        ({"eval_ratio": 0.25}, "18 to train on, 6 to evaluate"),
        ({"eval_steps": 3, "val_size": 4}, "evaluates     every 3 steps"),
        ({"val_size": 4, "metrics": "loss,f1"}, "evaluates     at the end: loss, f1"),
        ({"save_best_model": True, "val_size": 4}, "the lowest eval_loss is the final model"),
        ({"data_augmentation": True}, "variations of prompts"),
        ({"debug": True}, "read as "),
        ({"compute_type": None, "fp32": True}, "computing in fp32"),
        ({"compute_type": None, "pure_bf16": True}, "computing in pure_bf16"),
        ({"lora_modules": "attention"}, "Everything needed is there"),
        ({"local_rank": 3}, "local_rank: 3 is ignored: no launcher started this process"),
        ({"output_dir": None}, "writes to     saves/"),
        ({"output_dir": r"runs\one\two"}, "writes to     runs/one/two"),
        ({"lr_scheduler_type": "Constant", "warmup_steps": 3}, "has no effect with lr_scheduler_type constant"),
        ({"lora_init": "zero"}, "step 0 is the base model"),
        ({"eval_steps": 3}, "has no effect without evaluation data"),
    ],
)
def test_a_plan_shows_what_a_parameter_does(
    plan: Callable[..., str], options: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = 3 if options.get("overflow") == "error" else 2 if "nowhere/at-all" in options.values() else 0
    assert told in plan(code=code, **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stage": "sftt"}, "did you mean 'sft'?"),
        ({"learning_rate": 0}, "must be above 0"),
        ({"learning_rate": "inf"}, "learning_rate: "),
        ({"num_train_epochs": 0}, "must be above 0"),
        ({"cutoff_len": 0}, "must be at least 1"),
        ({"lora_rank": 0}, "must be at least 1"),
        ({"lora_dropout": 1}, "must be below 1"),
        ({"lora_target": "q_porj"}, "did you mean 'q_proj'?"),
        ({"lora_modules": "feedforward", "lora_target": "attention"}, "both set lora_target"),
        ({"bf16": True, "fp16": True, "compute_type": None}, "both set compute_type"),
        ({"compute_type": "fp16"}, "it supports bf16, pure_bf16, fp32"),
        ({"optim": "adamx"}, "unknown optimizer 'adamx'"),
        ({"lr_scheduler_type": "cosin"}, "did you mean 'cosine'?"),
        ({"report_to": "http://localhost:5000"}, "takes trackers' names"),
        ({"template": "custom"}, "custom needs template_args"),
        ({"template_args": '{"usr": "x"}'}, "usr"),
        ({"val_size": 0.1, "eval_dataset": "talk"}, "leave one out"),
        ({"save_best_model": True}, "needs evaluation data"),
        ({"resume_from_checkpoint": "nowhere"}, "resume_from_checkpoint"),
        ({"flash_attn": "fa4"}, "flash_attn: must be one of"),
        ({"metrics": "f2"}, "metrics"),
        ({"batch_size": 2}, "both set per_device_train_batch_size"),
        ({"lora_init": "none"}, "lora_init"),
        ({"learning_rte": 1}, "did you mean 'learning_rate'?"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    plan: Callable[..., str], options: dict[str, Any], told: str
) -> None:
    assert told in plan(code=2, **options)


def test_values_that_shape_the_weights_do(train: Run) -> None:
    plain = train("plain")
    shaping: list[dict[str, Any]] = [
        {"seed": 7}, {"optim": "SGD"}, {"optim": "Adagrad"}, {"weight_decay": 0.5}, {"lora_learning_rate": 1e-4},
        {"lora_rank": 4}, {"lora_alpha": 64}, {"lora_dropout": 0.5}, {"lora_target": "q_proj,v_proj"},
        {"lora_init": "normal"}, {"warmup_steps": 0.5},
        {"lr_scheduler_type": "constant"}, {"sample_strategy": "random", "max_samples": 8},
    ]  # fmt: skip
    for number, options in enumerate(shaping):
        assert differ(train(f"shaped-{number}", **options), plain), options
    same: list[dict[str, Any]] = [{"disable_cache": True}, {"gradient_checkpointing": True}]
    for number, options in enumerate(same):
        assert not differ(train(f"same-{number}", **options), plain), options


def test_values_that_say_what_is_kept_and_shown_do(
    train: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        "max_steps": 4,
        "save_steps": 2,
        "val_size": 4,
        "eval_steps": 2,
        "metrics": "loss,ppl,accuracy",
        "plot_loss": True,
    }
    run = train(
        "run", include_num_input_tokens_seen=True, log_dir=tmp_path / "logs", report_to="tensorboard", **options
    )
    assert (run / "checkpoint-2").is_dir() and (run / "training_loss.png").is_file()
    assert [row["current_steps"] for row in rows_of(run) if "eval_loss" in row] == [2, 4]
    assert {"eval_loss", "eval_perplexity", "eval_accuracy"} <= json.loads(
        (run / "eval_results.json").read_text()
    ).keys()
    assert any(path.name.startswith("events.out") for path in (tmp_path / "logs").rglob("*"))
    assert history(run)[0]["grad_norm"] > 0
    config = (run / "config.yaml").read_text()
    assert "save_steps: 2.0  # command line" in config and "lora_rank: 8  # default" in config
    assert f'logging_dir: "{tmp_path / "logs"}"  # command line (log_dir)' in config
    capsys.readouterr()
    longer = options | {"max_steps": 6, "resume_from_checkpoint": "auto"}
    train("run", include_num_input_tokens_seen=True, **longer)
    assert "going on from" in capsys.readouterr().err


def test_every_spelling_of_a_switch_is_read() -> None:
    def value(*written: str) -> Loaded:
        return load(["--model_name_or_path", "m", "--dataset", "d", *written], "train")

    for text in ("True", "true", "1", "yes"):
        assert value("--plot_loss", text).config.train.plot_loss
        assert value(f"plot_loss={text}").config.train.plot_loss
    assert value("--plot_loss").config.train.plot_loss and value("--disable_progress_bar").config.train.disable_tqdm
    for written in (["--plot_loss", "False"], ["--no-plot_loss"], ["plot_loss=no"]):
        assert not value(*written).config.train.plot_loss
    assert value("--disable_gradient_checkpointing").config.model.gradient_checkpointing is False
    assert value("--neat_packing").config.data.packing is True
    assert value("--max_steps", "-1").config.train.max_steps == -1
