"""Whole runs on tiny models, inside the test's own process."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

Train = Callable[..., Path]


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with `talk`: 21 alpaca rows of different lengths, so that 16 a step leave a short last window."""
    draw = random.Random(0)
    talk = [
        {"instruction": " ".join(draw.choices(tiny.WORDS, k=draw.randint(2, 9))), "input": "", "output": " ".join(draw.choices(tiny.WORDS, k=draw.randint(1, 14)))}
        for _ in range(21)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("rows")
    (folder / "talk.json").write_text(json.dumps(talk), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"talk": {"file_name": "talk.json"}}), encoding="utf-8")
    return folder


@pytest.fixture
def train(tiny_model: Path, rows: Path, tmp_path: Path) -> Train:
    """`train("name", finetuning_type="full", ...)` runs one and returns its folder; same name: the same command again."""
    from tunesmith.jobs.start import train_command

    def run(name: str, **options: Any) -> Path:
        folder = tmp_path / name
        wanted = {
            "model_name_or_path": tiny_model,
            "dataset": "talk",
            "dataset_dir": rows,
            "template": "qwen",
            "output_dir": folder,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "compute_type": "fp32",
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        arguments = [f"{key}={value}" for key, value in (wanted | options).items()]
        assert train_command(arguments) == 0
        return folder

    return run
