"""Liger's kernels compute what the model's own parts do.  Without a GPU, in Triton's interpreter."""

import interpreted
import pytest
import torch
import transformers
import zoo
from interpreted import DEVICE
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith.log import OptionError
from tunesmith.models.elementwise import lighten
from tunesmith.models.liger import _rotate, take, wanted
from tunesmith.models.predict import predictor
from tunesmith.models.tuning.fused import fuse

GEMMA3 = (transformers.Gemma3TextConfig, {**zoo.GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8})


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreted.liger(monkeypatch)


def built(name: str) -> PreTrainedModel:
    kind, shape = {**zoo.ARCHITECTURES, "gemma3": GEMMA3}[name]
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(kind(**shape)).eval().to(DEVICE)
    zoo.shake(model)
    return model


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    ids = torch.arange(3, 27, device=DEVICE).view(2, 12)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    ("name", "norms", "gates", "rotations"),
    [("qwen2", 5, 2, 2), ("qwen3_tied", 9, 2, 2), ("llama", 5, 2, 2), ("gemma3", 13, 2, 2), ("gpt_neox", 0, 0, 2)],
)
def test_outputs_and_gradients_stay(kernels: None, name: str, norms: int, gates: int, rotations: int) -> None:
    model = built(name)
    logits, before = zoo.logits(model), gradients(model)
    assert take(model) == {"norms": norms, "gates": gates, "rotations": rotations}
    torch.testing.assert_close(zoo.logits(model), logits, rtol=1e-5, atol=1e-5)
    after = gradients(model)
    largest = max(float(gradient.abs().max()) for gradient in before.values())
    for weight, gradient in before.items():
        torch.testing.assert_close(after[weight], gradient, rtol=1e-4, atol=1e-5 * largest)


def test_with_lora_in_one_step_and_rows_behind_one_another(kernels: None) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    ids, found = torch.arange(3, 27, device=DEVICE).view(1, 24), []
    bounds = torch.tensor([0, 9, 24], dtype=torch.int32, device=DEVICE)
    for by_liger in (False, True):
        model = get_peft_model(built("qwen2"), config)
        zoo.shake(model)
        fuse(model)
        lighten(model)
        if by_liger:
            assert take(model) == {"norms": 5, "gates": 2, "rotations": 2}
        asked = predictor(model)
        positions = torch.cat([torch.arange(9), torch.arange(15)])[None].to(DEVICE)
        said = asked(ids, positions, None, torch.arange(23, device=DEVICE), bounds, 15)
        loss = said.cross_entropy(ids[0, 1:])
        loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        found.append((loss.detach(), gradients))
    (loss, before), (other, after) = found
    torch.testing.assert_close(other, loss, rtol=1e-5, atol=0)
    largest = max(float(gradient.abs().max()) for gradient in before.values())
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, rtol=1e-4, atol=1e-5 * largest)


def test_no_other_model_of_the_kind_is_touched(kernels: None) -> None:
    taken, other = built("llama"), built("llama")
    before = [type(module).forward for module in other.modules()]
    take(taken)
    assert not any("forward" in vars(module) for module in other.modules())
    assert [type(module).forward for module in other.modules()] == before


def test_nothing_that_is_given_is_written_over(kernels: None) -> None:
    query, key = (torch.randn(1, 5, heads, 16, device=DEVICE).transpose(1, 2) for heads in (4, 2))
    before, angles = (query.clone(), key.clone()), torch.randn(1, 5, 16, device=DEVICE)
    _rotate(query, key, angles.cos(), angles.sin())
    assert torch.equal(query, before[0]) and torch.equal(key, before[1])


def test_asked_for_without_a_gpu() -> None:
    with pytest.raises(OptionError, match="enable_liger_kernel: Liger's kernels need a GPU"):
        wanted(True, torch.device("cpu"))
    assert not wanted("auto", torch.device("cpu")) and not wanted(False, torch.device("cuda"))
