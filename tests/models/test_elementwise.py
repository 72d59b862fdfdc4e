"""Lighter norms and gates compute what the model's own do, and leave alone what they do not know."""

import pytest
import torch
import transformers
import zoo
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith.models.elementwise import add_rows_read, lighten

GEMMA3 = (transformers.Gemma3TextConfig, {**zoo.GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8})


def built(name: str) -> PreTrainedModel:
    kind, shape = {**zoo.ARCHITECTURES, "gemma3": GEMMA3}[name]
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(kind(**shape)).eval()
    zoo.shake(model)
    return model


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    ids = torch.arange(3, 27).view(2, 12)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    ("name", "norms", "gates"),
    [("qwen2", 5, 2), ("qwen3_tied", 9, 2), ("llama", 5, 2), ("gemma2", 9, 0), ("gemma3", 13, 0), ("gpt_neox", 0, 0)],
)
def test_outputs_and_gradients_stay(name: str, norms: int, gates: int) -> None:
    model = built(name)
    logits, before = zoo.logits(model), gradients(model)
    assert lighten(model) == {"norms": norms, "gates": gates}
    torch.testing.assert_close(zoo.logits(model), logits, rtol=1e-5, atol=1e-5)
    after = gradients(model)
    largest = max(float(gradient.abs().max()) for gradient in before.values())
    for weight, gradient in before.items():
        torch.testing.assert_close(after[weight], gradient, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_bf16_is_as_near_the_truth_as_the_model_s_own(name: str) -> None:
    truth, apart = gradients(built(name)), []
    for light in (False, True):
        model = built(name).bfloat16()
        if light:
            assert lighten(model)["norms"]
        found = gradients(model)
        apart.append(sum(float((found[weight].float() - truth[weight]).norm() ** 2) for weight in truth) ** 0.5)
    assert apart[1] <= 1.1 * apart[0]


def test_less_is_kept_for_the_way_back() -> None:
    kept = []
    for light in (False, True):
        model = built("qwen2").bfloat16().requires_grad_(False)
        model.enable_input_require_grads()
        if light:
            lighten(model)
        sizes = dict[int, int]()

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(input_ids=torch.arange(3, 27).view(2, 12), use_cache=False)
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.9 * kept[0]


def test_dropout_hides_no_gate_and_draws_no_numbers() -> None:
    config = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(built("qwen2"), config)
    zoo.shake(model)
    model.train()
    state = torch.get_rng_state()
    assert lighten(model)["gates"] == 2
    assert model.training and torch.equal(torch.get_rng_state(), state)


def test_a_norm_that_does_something_else_stays() -> None:
    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.rand(8)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)

    assert lighten(nn.Sequential(OddRMSNorm())) == {"norms": 0, "gates": 0}


@pytest.mark.parametrize(("name", "tied"), [("qwen3_tied", True), ("gemma2", True), ("qwen2", False)])
def test_embeddings_that_are_the_head_get_the_same_gradient_from_the_rows_read(name: str, tied: bool) -> None:
    model = built(name)
    before = gradients(model)
    assert add_rows_read(model) is tied
    after = gradients(model)
    assert before.keys() == after.keys()
    for weight, gradient in after.items():
        assert gradient.layout == torch.strided
        torch.testing.assert_close(gradient, before[weight], rtol=1e-5, atol=1e-6)


def test_hooks_on_embeddings_that_are_the_head_see_the_whole_gradient() -> None:
    model = built("qwen3_tied")
    (before,) = (found for name, found in gradients(model).items() if "embed_tokens" in name)
    add_rows_read(model)
    weight, seen = model.get_input_embeddings().weight, list[torch.Tensor]()

    def forget(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        seen.append(weight.grad)
        weight.grad = None

    weight.register_post_accumulate_grad_hook(forget)
    assert not any("embed_tokens" in name for name in gradients(model))
    torch.testing.assert_close(seen[0], before, rtol=1e-5, atol=1e-6)
