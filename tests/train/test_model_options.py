"""Options that change the model of a run: what they change in training, and where the run's folder keeps it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.config.load import load
from tunesmith.export.command import export_command
from tunesmith.generate.load import load_engine
from tunesmith.generate.source import settle
from tunesmith.log import ModelError
from tunesmith.models.where import find, find_adapters

Train = Callable[..., Path]


def first_loss(folder: Path) -> float:
    return json.loads((folder / "trainer_log.jsonl").read_text().splitlines()[0])["loss"]


def test_dropout_is_in_training_and_goes_on_exactly(train: Train) -> None:
    options = {"max_steps": 4, "save_steps": 2, "lr_scheduler_type": "constant"}
    dropped, kept = (train(f"rate{rate}", dropout_rate=rate, **options) for rate in (0.5, 0.0))
    assert first_loss(dropped) != first_loss(kept) == first_loss(train("own", **options | {"max_steps": 1}))
    train("parted", dropout_rate=0.5, **options | {"max_steps": 2})
    parted = load_file(train("parted", dropout_rate=0.5, **options) / "adapter_model.safetensors")
    whole = load_file(dropped / "adapter_model.safetensors")
    assert all(torch.equal(tensor, parted[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_stretched_positions_stay_with_the_model(
    method: str, train: Train, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"finetuning_type": method, "max_steps": 1, "rope_scaling": "linear", "cutoff_len": 1500}
    folder = train("long", **options)
    assert "note: rope_scaling: linear stretches the model's 512 positions 3 times\n" in capsys.readouterr().err
    plain = train("plain", **options | {"cutoff_len": 500})
    assert "warning: rope_scaling: has no effect: cutoff_len 500 fits" in capsys.readouterr().err
    assert first_loss(folder) != first_loss(plain)
    loaded = load([str(folder), "compute_type=fp32"], command="chat")
    cfg = settle(loaded.config, loaded.given)
    engine, _ = load_engine(find(cfg.model), find_adapters(cfg.model), cfg.model, cfg.data)
    ids = torch.arange(3, 60)[None]
    said = engine.model(input_ids=ids).logits
    merged = folder if method == "full" else tmp_path / "merged"
    if method == "lora":
        assert export_command([str(folder), "--export_dir", str(merged)]) == 0
    config = AutoConfig.from_pretrained(merged)
    assert config.rope_parameters["factor"] == 3.0 and config.max_position_embeddings == 1536
    theirs = AutoModelForCausalLM.from_pretrained(merged)
    torch.testing.assert_close(theirs(input_ids=ids).logits, said, atol=1e-4, rtol=1e-3)


def test_a_model_that_begins_at_random_needs_no_weights(
    train: Train, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = tmp_path / "shape"
    shutil.copytree(tiny_model, shape, ignore=shutil.ignore_patterns("*.safetensors"))
    options = {
        "model_name_or_path": shape, "train_from_scratch": True, "finetuning_type": "full", "stage": "pt", "max_steps": 4,
        "save_steps": 2, "lr_scheduler_type": "constant", "template": None,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    whole = train("whole", **options)
    assert "weights of" in capsys.readouterr().err
    assert first_loss(whole) == pytest.approx(math.log(600), abs=0.2)
    assert first_loss(train("seeded", **options | {"max_steps": 1, "seed": 7})) != first_loss(whole)
    train("parted", **options | {"max_steps": 2})
    parted = load_file(train("parted", **options) / "model.safetensors")
    assert all(torch.equal(tensor, parted[name]) for name, tensor in load_file(whole / "model.safetensors").items())
    with pytest.raises(ModelError, match="no weights"):
        train("read", **options | {"train_from_scratch": False})
