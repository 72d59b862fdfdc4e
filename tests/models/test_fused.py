"""LoRA computed at once is peft's LoRA: outputs, gradients and files."""

from pathlib import Path

import pytest
import torch
import zoo
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora.layer import Linear as LoraLinear
from transformers import AutoModelForCausalLM

from tunesmith.models.tuning.fused import FusedLinear, fuse


def tuned(folder: Path, **changes: object) -> torch.nn.Module:
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **changes)
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    zoo.shake(model)
    return model


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(4)
    ids = torch.arange(3, 27).view(2, 12)
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", ["qwen2", "phi3", "gpt_neox", "opt"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_peft(tmp_path: Path, name: str, dropout: float) -> None:
    model = tuned(zoo.build(name, tmp_path), lora_dropout=dropout)
    logits, before = zoo.logits(model), gradients(model)
    assert fuse(model) > 4
    torch.testing.assert_close(zoo.logits(model), logits, rtol=1e-5, atol=1e-5)
    after = gradients(model)
    assert after.keys() == before.keys()
    for weight, gradient in before.items():
        torch.testing.assert_close(after[weight], gradient, rtol=1e-4, atol=1e-6)


def test_bf16_is_as_near_the_truth_as_peft(tmp_path: Path) -> None:
    zoo.build("qwen2", tmp_path)
    truth = gradients(tuned(tmp_path))
    apart = []
    for fused in (False, True):
        model = tuned(tmp_path)
        for weight in model.parameters():
            weight.data = weight.data if weight.requires_grad else weight.data.bfloat16()
        if fused:
            fuse(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradients(model)
        apart.append(sum(float((found[name].float() - truth[name]).norm() ** 2) for name in truth) ** 0.5)
    assert apart[1] <= 1.1 * apart[0]


def test_merged_and_switched_off_layers_are_peft_s_own(tmp_path: Path) -> None:
    model = tuned(zoo.build("qwen2", tmp_path))
    fuse(model)
    with model.disable_adapter():
        base = zoo.logits(model)
    torch.testing.assert_close(base, zoo.logits(AutoModelForCausalLM.from_pretrained(tmp_path)))
    adapted = zoo.logits(model)
    model.merge_adapter()
    torch.testing.assert_close(zoo.logits(model), adapted, rtol=1e-4, atol=1e-5)


def test_files_and_kinds_of_modules_stay(tmp_path: Path) -> None:
    model = tuned(zoo.build("qwen2", tmp_path))
    before = get_peft_model_state_dict(model)
    fuse(model)
    assert get_peft_model_state_dict(model).keys() == before.keys()
    assert all(isinstance(module, LoraLinear) for module in model.modules() if isinstance(module, FusedLinear))


def test_dora_stays_as_it_is(tmp_path: Path) -> None:
    assert fuse(tuned(zoo.build("qwen2", tmp_path), use_dora=True)) == 0
