"""A run compiles when its plan says that it earns the time back, and goes on as it began."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tunesmith import compiled
from tunesmith.train import checkpoint

Train = Callable[..., Path]

FULL = {"finetuning_type": "full", "save_steps": 2, "lr_scheduler_type": "constant"}


def test_a_compiled_run_goes_on_as_it_began(train: Train) -> None:
    # Under Adam a weight moves as far by a gradient that is rounding alone as by any other.
    plainly = FULL | {"optim": "sgd", "learning_rate": 0.5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compiled.COST_SECONDS, "cpu", 1e-9)
        whole = train("whole", **plainly, max_steps=4)
        train("parts", **plainly, max_steps=2)
    assert checkpoint.read_position(whole / "checkpoint-4").compiled
    parts = train("parts", **plainly, max_steps=4, resume_from_checkpoint=True)
    plain = train("plain", **plainly, max_steps=4)
    assert not checkpoint.read_position(plain / "checkpoint-4").compiled
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    for name, weight in load_file(plain / "model.safetensors").items():
        other = load_file(whole / "model.safetensors")[name]
        assert float((weight - other).norm()) <= 1e-6 * float(weight.norm())
    assert not compiled._compiling, "a run leaves no trace in its process"


def test_only_long_runs_compile(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(compiled, "switch_on", lambda device: asked.append(device) or False)
    train("short", max_steps=1)
    assert not asked
    monkeypatch.setitem(compiled.COST_SECONDS, "cpu", 1e-9)
    folder = train("long", max_steps=1)
    assert len(asked) == 1
    assert "compiling takes about 0 s and saves about" in capsys.readouterr().err
    train("never", max_steps=1, torch_compile=False)
    assert len(asked) == 1
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
