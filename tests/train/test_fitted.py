"""`fit: auto` takes what fits, says so, learns the same, and goes on as it began."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.train.foretelling import fitted

Train = Callable[..., Path]


def test_a_step_is_made_to_fit_and_the_same_is_learned(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "fit": "auto", "seed": 1}
    monkeypatch.setattr(fitted, "free_bytes", lambda device: 1 << 30)
    plain = train("plain", **shared)
    assert "fit: " not in capsys.readouterr().err
    monkeypatch.setattr(fitted, "free_bytes", lambda device: 2_500_000)
    small = train("small", **shared)
    said = capsys.readouterr().err
    assert "note: fit: per_device_train_batch_size: " in said and "since a step would take" in said
    facts = json.loads((small / "run.json").read_text(encoding="utf-8"))
    size = facts["fit"]["per_device_train_batch_size"]
    assert size < 16 and size * facts["fit"]["gradient_accumulation_steps"] == 16
    first, second = (load_file(run / "adapter_model.safetensors") for run in (plain, small))
    assert all(torch.allclose(weight, second[name], atol=1e-4) for name, weight in first.items())
    monkeypatch.setattr(fitted, "free_bytes", lambda device: 1 << 30)
    train("small", **shared, num_train_epochs=3)  # goes on with what was chosen


def test_what_can_not_be_made_to_fit_is_told(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitted, "free_bytes", lambda device: 1000)
    train("run", fit="auto")
    assert "warning: fit: a step takes" in capsys.readouterr().err
