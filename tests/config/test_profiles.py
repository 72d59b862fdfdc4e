"""A profile sets defaults below everything that is written, and says so."""

import tomllib
from pathlib import Path
from typing import get_args

import pytest

from tunesmith.cli import main
from tunesmith.config import profiles
from tunesmith.config.load import Loaded, load
from tunesmith.config.schema import fields
from tunesmith.config.train import TrainConfig

NEEDED = ["model_name_or_path=m", "dataset=d", "output_dir=o"]


def guided(*words: str) -> Loaded:
    return load([*NEEDED, "profile=guide", *words], "train")


def test_every_profile_is_a_file_and_every_file_a_profile() -> None:
    names = [name for one in get_args(TrainConfig.model_fields["profile"].annotation) for name in get_args(one)]
    assert names == [path.stem for path in sorted(Path(profiles.__file__).parent.glob("*.toml"))]


def test_the_guide_s_values_are_those_of_its_command_written_out() -> None:
    found = guided()
    file = Path(profiles.__file__).with_name("guide.toml")
    written = [f"{name}={str(value).lower()}" for name, value in tomllib.loads(file.read_text()).items()]
    same = load([*NEEDED, *written], "train").config.flat()
    assert found.config.flat() == same | {"profile": "guide"}
    assert (found.config.optim.learning_rate, found.config.train.gradient_accumulation_steps) == (5e-5, 8)
    assert found.config.model.compute_type == "bf16" and found.config.train.save_steps == 100
    assert found.origins["save_steps"] == "profile guide" and found.origins["seed"] == "default"


def test_what_is_written_wins_over_the_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("lora_rank: 4\nfp32: true\n")
    found = guided(str(file), "global_batch_size=32", "lr=1e-4")
    flat = found.config.flat()
    assert [flat[name] for name in ("lora_rank", "compute_type", "learning_rate", "lora_alpha")] == [
        4,
        "fp32",
        1e-4,
        16,
    ]
    assert found.origins["lora_rank"] == f"{file}:1" and found.origins["lora_alpha"] == "profile guide"
    assert guided("finetuning_type=full").config.tuning.finetuning_type == "full"
    assert "has no effect" not in capsys.readouterr().err
    assert set(found.origins) == set(fields())


def test_an_unknown_profile_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *NEEDED, "profile=giude"]) == 2
    assert "profile: must be one of guide" in capsys.readouterr().err
