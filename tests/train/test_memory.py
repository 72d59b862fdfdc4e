"""The memory a step is said to take beside what it takes, and what is done where that is more than is free."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.estimate.live import Live
from tunesmith.estimate.memory import Memory
from tunesmith.log import ModelError
from tunesmith.models import recompute
from tunesmith.models.tuning.fused import fuse
from tunesmith.train import policy
from tunesmith.train.foretelling import cheaper, memory, trial
from tunesmith.train.hooks import Hooks
from tunesmith.train.session import Session
from tunesmith.train.stop import Stops

Train = Callable[..., Path]

RUNS = {
    "full": {"finetuning_type": "full"},
    "lora": {"lora_rank": 4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "full in bf16": {"finetuning_type": "full", "compute_type": "bf16"},
    "pure bf16": {"finetuning_type": "full", "compute_type": "pure_bf16"},
    "lora in bf16": {"lora_rank": 4, "compute_type": "bf16"},
    "padded": {"disable_speedups": "no_padding"},
    "whole logits": {"disable_speedups": "fused_loss"},
    "recomputed": {"finetuning_type": "full", "compute_type": "bf16", "gradient_checkpointing": True},
    "recomputed, lora": {"gradient_checkpointing": True},
    "selective": {"finetuning_type": "full", "gradient_checkpointing": "selective"},
    "sgd": {"finetuning_type": "full", "optim": "sgd"},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_what_a_step_takes_is_what_was_said(train: Train, monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    """Within a tenth, of all tensors that are alive at once in four steps, and the weights."""
    found: list[tuple[Memory, int]] = []
    fit = Session.fit

    def watched(self: Session, stops: Stops) -> Hooks:
        with Live() as live:
            hooks = fit(self, stops)
        found.append((self.memory, live.peak))
        return hooks

    monkeypatch.setattr(Session, "fit", watched)
    shared = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "num_train_epochs": 2}
    train("run", **shared, **options)
    said, peak = found[0]
    assert said.to_come == pytest.approx(peak, rel=0.1), (str(said), peak)


def test_as_many_layers_are_recomputed_as_are_needed(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None with much memory, and one or more of two with less; the trained weights are the same bits."""
    weights, told = [], []
    for name, free in (("much", 1 << 30), ("less", 10_600_000)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        shared = {"per_device_train_batch_size": 16, "lora_dropout": 0.3, "lora_rank": 4}
        run = train(name, gradient_checkpointing="auto", **shared)
        weights.append(load_file(run / "adapter_model.safetensors"))
        told.append(re.search(r"gradient_checkpointing: (\d) of 2 layers", capsys.readouterr().err)[1])
    assert told == ["0", "1"]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_too_little_memory_is_told_before_the_first_step(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cheaper, "free_bytes", lambda device: 1000)
    train("run")
    told = capsys.readouterr().err
    assert "warning: memory: a step needs" in told and "gradient_checkpointing: true would take" in told
    monkeypatch.setattr(cheaper, "free_bytes", lambda device: None)
    train("unknown")
    assert "warning: memory" not in capsys.readouterr().err


def test_measuring_changes_no_bit(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, neither random numbers nor gradients are left behind."""
    runs = [train("measured", lora_dropout=0.3)]
    monkeypatch.setattr(Session, "_settle_memory", lambda self: Memory(0, 0, 0, 0, 0, 0, 0))
    runs.append(train("not measured", lora_dropout=0.3))
    first, second = (load_file(run / "adapter_model.safetensors") for run in runs)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_trying_changes_no_bit(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a run that is tried end otherwise: with dropout, an optimizer's state, and evaluation."""
    tried: list[int] = []
    attempt = trial.try_step

    def counted(*given: Any) -> None:
        tried.append(1)
        attempt(*given)

    monkeypatch.setattr(trial, "try_step", counted)
    runs = []
    for due in (True, False):
        monkeypatch.setattr(trial, "is_due", lambda needed, device, due=due: due)
        runs.append(train(f"tried {due}", lora_dropout=0.3, val_size=4, max_steps=3))
    assert tried == [1]
    first, second = (load_file(run / "adapter_model.safetensors") for run in runs)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_a_step_is_tried_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = Memory(100, 0, 10, 20, 30, 0, 0)
    for free, due in ((119, True), (121, False), (None, False)):
        monkeypatch.setattr(trial, "free_bytes", lambda device, free=free: free)
        assert trial.is_due(needed, torch.device("cpu")) == due
    assert trial.is_due(needed, torch.device("cuda"))


def test_on_a_cpu_some_memory_must_be_left_and_a_step_is_tried_in_what_the_first_left(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = Memory(100, 0, 10, 20, 30, 0, 0)
    assert trial.spare_bytes(needed, torch.device("cpu")) == int(trial.SPARE * needed.to_come) > 0
    assert trial.spare_bytes(needed, torch.device("cuda")) == trial.spare_bytes(None, torch.device("cpu")) == 0
    beside: list[int] = []
    attempt = trial._pass

    def counted(*given: Any) -> None:
        beside.append(given[5])
        attempt(*given)

    monkeypatch.setattr(trial, "_pass", counted)
    monkeypatch.setattr(trial, "is_due", lambda needed, device: True)
    train("run", max_steps=1)
    assert len(beside) == 2 and beside[0] == 0 < beside[1]


def test_a_model_that_changes_products_is_told_before_the_first_step(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompute, "WIDE", 16)
    monkeypatch.setattr(policy, "fuse", lambda model, in_place: fuse(model))
    with pytest.raises(ModelError, match="gradient_checkpointing: Qwen2ForCausalLM changes products in place"):
        train("run", gradient_checkpointing="selective")
