"""A model asked without padding and without whole logits costs what it costs asked plainly: loss and gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import zoo
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from tunesmith.data.batching.collate import join, pad
from tunesmith.data.sample import EVERYTHING, IGNORED, Sample
from tunesmith.losses.tokens import asft
from tunesmith.models import ragged
from tunesmith.models.predict import Head, Predictions, Predictor, predictor

MORE = {
    "gemma3": (transformers.Gemma3TextConfig, {**zoo.GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "granite": (transformers.GraniteConfig, {**zoo.GROUPED, "logits_scaling": 4.0}),
    "cohere2": (transformers.Cohere2Config, {**zoo.GROUPED, "sliding_window": 6}),
    "mistral_window": (transformers.MistralConfig, {**zoo.GROUPED, "sliding_window": 6}),
    "bloom": (transformers.BloomConfig, {"vocab_size": 600, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gpt_oss": (
        transformers.GptOssConfig,
        {**zoo.GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6},
    ),
    "llama4": (
        transformers.Llama4TextConfig,
        {**zoo.GROUPED, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2, "attention_chunk_size": 8},
    ),
}
PADDED = ("bloom", "gpt_oss", "llama4")


def built(name: str) -> PreTrainedModel:
    kind, shape = {**zoo.ARCHITECTURES, **MORE}[name]
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(kind(**shape))
    zoo.shake(model)  # so that soft limits and windows tell
    return model.eval()  # without dropout


def samples(start: int = 0) -> list[Sample]:
    """Rows that begin with `start` tokens alike."""
    random = np.random.default_rng(0)
    alike = random.integers(3, 600, start).astype(np.int32)
    found = []
    for tokens in (9, 17, 4, 12):
        ids = random.integers(3, 600, tokens).astype(np.int32)
        labels = np.where(random.random(tokens) < 0.6, ids, np.int32(IGNORED))
        found.append(Sample(np.append(alike, ids), np.append(np.full_like(alike, IGNORED), labels)))
    return found


def cost(asked: Predictor, start: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    share, rows = EVERYTHING if asked.shares else 0, samples(start)
    even = asked.multiple_of
    batch = join(rows, range(4), share=share, multiple_of=even) if asked.ragged else pad(rows, range(4), pad_id=0)
    assert not asked.ragged or batch.input_ids.shape[1] % even == 0
    assert (batch.shared is not None) == (asked.shares and start > 0)
    asked.zero_grad()
    said = asked(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=None if batch.packed else batch.attention_mask,
        places=batch.places,
        bounds=batch.bounds,
        longest=batch.longest,
        shared=batch.shared,
    )
    loss = said.cross_entropy(batch.targets)
    loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in asked.named_parameters() if weight.grad is not None}
    return loss.detach(), gradients


@pytest.mark.parametrize(("short", "even"), [(0, 1), (512, 1), (512, 32)])
@pytest.mark.parametrize("start", [0, 11])
@pytest.mark.parametrize("name", [*zoo.ARCHITECTURES, *MORE])
def test_the_fast_way_is_the_plain_way(
    monkeypatch: pytest.MonkeyPatch, name: str, start: int, short: int, even: int
) -> None:
    monkeypatch.setattr(ragged, "SHORT", short)
    plain, gradients = cost(predictor(built(name), no_padding=False, fused_loss=False), start)
    asked = predictor(built(name), multiple_of=even)
    assert asked.ragged == asked.shares == (name not in PADDED)
    loss, fast_gradients = cost(asked, start)
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    assert fast_gradients.keys() == gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for weight, gradient in gradients.items():
        torch.testing.assert_close(fast_gradients[weight], gradient, rtol=1e-4, atol=1e-5 * largest)


def test_a_model_whose_rows_would_see_each_other_stays_padded() -> None:
    model = built("bloom")
    before = model.config._attn_implementation
    assert not predictor(model).ragged
    assert model.config._attn_implementation == before


def test_a_trial_leaves_mode_and_random_states_alone() -> None:
    model = built("qwen2").train()
    state = torch.get_rng_state()
    predictor(model)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert model.config._attn_implementation == ragged.NAME


def test_a_tuned_head_is_the_one_that_is_asked(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    found = []
    for fused in (False, True):
        model = get_peft_model(built("qwen2"), config)
        zoo.shake(model)
        found.append(cost(predictor(model, fused_loss=fused)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=0)
    assert any("lm_head" in name for name in found[1][1])
    assert found[0][1].keys() == found[1][1].keys()


@pytest.mark.parametrize("name", ["qwen2", "llama", "gemma3"])
def test_bf16_is_as_near_the_truth_as_the_plain_way(name: str) -> None:
    _, truth = cost(predictor(built(name), no_padding=False, fused_loss=False))
    apart = []
    for fast in (False, True):
        asked = predictor(built(name).bfloat16(), no_padding=fast, fused_loss=fast)
        assert asked.ragged == fast
        _, gradients = cost(asked)
        apart.append(sum(float((gradients[weight].float() - truth[weight]).norm() ** 2) for weight in truth) ** 0.5)
    assert apart[1] <= 1.1 * apart[0]


def test_what_a_deep_model_rounds_in_bf16_is_no_leak() -> None:
    config = Qwen2Config(
        vocab_size=20_000, hidden_size=64, intermediate_size=128, num_hidden_layers=200, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    asked = predictor(Qwen2ForCausalLM(config).bfloat16().eval())
    assert asked.ragged and asked.shares and asked.head is not None


@pytest.mark.parametrize("weighted", [False, True])
def test_places_that_count_nothing_change_no_loss(weighted: bool) -> None:
    torch.manual_seed(0)
    head = Head(torch.nn.Linear(8, 50, bias=True), 1.0, None)
    at, before, targets = torch.randn(45, 8), torch.randn(45, 8), torch.randint(50, (45,))
    weights = torch.rand(45) if weighted else None
    found = []
    for even in (1, 32):
        hidden = at.clone().requires_grad_()
        asked = Predictions(hidden, head, multiple_of=even)
        costs = (
            asked.cross_entropy(targets, weights),
            asked.cost(asft(0.1), targets, weights, Predictions(before, head)),
        )
        head.linear.zero_grad()
        sum(costs).backward()  # type: ignore[union-attr]
        found.append([*costs, hidden.grad, head.linear.weight.grad, head.linear.bias.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
