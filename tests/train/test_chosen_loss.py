"""Losses, label smoothing and NEFTune in whole runs: they tell, gradient accumulation stays exact, stopping changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from tunesmith.data.batching.collate import join
from tunesmith.data.sample import Sample
from tunesmith.models.predict import predictor

LOSSES: dict[str, dict[str, Any]] = {
    "dft": {"use_dft_loss": True},
    "eaft": {"loss": "EAFT", "eaft_alpha": 0.5},
    "asft": {"use_asft_loss": True, "asft_alpha": 20.0},
    "asft, full": {"loss": "asft", "asft_alpha": 20.0, "finetuning_type": "full", "learning_rate": 1e-3},
    "smoothed": {"label_smoothing_factor": 0.3},
}


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "trainer_log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_tells_and_accumulates_exactly(train, name: str) -> None:
    options = {"max_steps": 2, "disable_speedups": "merged_batches", **LOSSES[name]}
    parts = losses(train("parts", **options))
    whole = losses(train("whole", **options, per_device_train_batch_size=8, gradient_accumulation_steps=1))
    assert parts == pytest.approx(whole, rel=1e-4)
    padded = losses(train("padded", **{**options, "disable_speedups": "no_padding,fused_loss"}))
    assert parts == pytest.approx(padded, rel=1e-4)
    same = {key: value for key, value in options.items() if key in ("finetuning_type", "learning_rate", "max_steps")}
    plain = losses(train("plain", **same))
    assert abs(plain[0] - parts[0]) > 1e-3
    if "asft" in name:  # at the first step nothing has changed yet, so it is DFT's
        dft = losses(train("dft", **same, loss="dft"))
        assert parts[0] == pytest.approx(dft[0], abs=1e-6)
        assert parts[1] > dft[1] + 1e-4


def test_evaluation_is_by_cross_entropy_whatever_trains(train) -> None:
    results = []
    for name, loss in (("plain", {}), ("smoothed", {"label_smoothing_factor": 0.5})):
        run = train(name, **loss, max_steps=1, learning_rate=1e-9, val_size=5, eval_steps=1)
        results.append(json.loads((run / "eval_results.json").read_text())["eval_loss"])
    assert results[0] == pytest.approx(results[1], abs=1e-5)


def test_noise_is_drawn_in_training_only_and_differs_from_step_to_step(train) -> None:
    quiet = train("quiet", learning_rate=1e-12, num_train_epochs=1, val_size=5, eval_steps=1)
    noisy = train("noisy", learning_rate=1e-12, num_train_epochs=1, val_size=5, eval_steps=1, neftune_noise_alpha=5)
    pairs = list(zip(losses(quiet), losses(noisy), strict=True))
    assert all(abs(one - other) > 1e-6 for one, other in pairs)
    found = [json.loads((run / "eval_results.json").read_text())["eval_loss"] for run in (quiet, noisy)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_a_model_without_its_adapter_says_what_it_said_before(tiny_model: Path) -> None:
    base, model = (AutoModelForCausalLM.from_pretrained(tiny_model).train() for _ in range(2))
    batch = join([Sample(*[torch.arange(3, 12, dtype=torch.int32).numpy()] * 2)], [0])
    asked = {
        "input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": None,
        "places": batch.places, "bounds": batch.bounds, "longest": batch.longest,
    }  # fmt: skip
    everything = slice(0, len(batch.places))
    with torch.no_grad():
        plain = predictor(base)(**asked).logits()(everything)
    config = LoraConfig(target_modules=["q_proj", "up_proj"], modules_to_save=["lm_head"], lora_dropout=0.5)
    tuned = get_peft_model(model, config)
    trained = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    for name in trained:
        nn.init.normal_(tuned.get_parameter(name))
    policy = predictor(tuned)
    before = policy.before_tuning(**asked).logits()(everything)
    torch.testing.assert_close(before, plain)
    said = policy(**asked)
    assert (said.logits()(everything) - plain).abs().max() > 0.1
    assert trained == {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert policy.training and tuned.training
    said.cross_entropy(batch.targets).backward()
    assert all(tuned.get_parameter(name).grad is not None for name in trained)
