"""Fixtures of the tests of the parameter guide: data, a plan, a run.  Knows no parameter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.cli import main

Run = Callable[..., Path]
Plan = Callable[..., str]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with `talk`, 24 rows, and `more`, 5."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{"instruction": f"count to {n}", "output": " ".join(map(str, range(n + 1)))} for n in range(24)]
    for name, count in (("talk", 24), ("more", 5)):
        (folder / f"{name}.json").write_text(json.dumps(rows[:count]))
    entries = {name: {"file_name": f"{name}.json"} for name in ("talk", "more")}
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="session")
def written(tiny_model: Path, data: Path) -> Callable[..., list[str]]:
    """The words of a run with these options, beside those that all have."""

    def write(output_dir: Path, **options: Any) -> list[str]:
        wanted = {
            "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": data, "template": "qwen",
            "output_dir": output_dir, "max_steps": 2, "compute_type": "fp32", "disable_tqdm": True,
            "logging_steps": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4,
        }  # fmt: skip
        return [f"{key}={value}" for key, value in (wanted | options).items() if value is not None]

    return write


@pytest.fixture
def plan(written: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plan:
    """What a plan with these options says, on both streams, once it has ended with `code` (None: with any error)."""

    def run(*, code: int | None = 0, **options: Any) -> str:
        capsys.readouterr()
        ended = main(["plan", *written(**({"output_dir": tmp_path / "run"} | options))])
        told = capsys.readouterr()
        assert ended == code if code is not None else ended in (2, 3, 5), told.err
        return told.out + told.err

    return run


@pytest.fixture
def train(written: Callable[..., list[str]], tmp_path: Path) -> Run:
    """`train("name", lora_rank=4)` runs and returns the folder."""

    def run(name: str = "run", *, code: int = 0, **options: Any) -> Path:
        assert main(["train", *written(tmp_path / name, **options)]) == code
        return tmp_path / name

    return run


@pytest.fixture(scope="session")
def plain_run(written: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without any further option."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert main(["train", *written(folder)]) == 0
    return folder


def history(run: Path) -> list[dict[str, Any]]:
    """Rows of `trainer_state.json`'s log."""
    found: list[dict[str, Any]] = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return found


def logged(run: Path, name: str) -> list[float]:
    """A value of each row that has it."""
    return [row[name] for row in history(run) if name in row]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What an adapter's run has trained."""
    return load_file(run / "adapter_model.safetensors")


def differ(one: Path, other: Path) -> bool:
    """Whether two runs trained other weights."""
    first, second = weights(one), weights(other)
    return first.keys() != second.keys() or any(not torch.equal(first[name], second[name]) for name in first)
