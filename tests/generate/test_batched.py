"""Rows answered together say what each says alone, whoever stands beside them, whenever they join and leave."""

import dataclasses
import sys
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from transformers import AutoModelForCausalLM

from tunesmith.generate import batched
from tunesmith.generate.batched import Prompt, answers, trial
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.transformers import TransformersEngine

sys.path.append(str(Path(__file__).parent.parent / "models"))
import zoo

GREEDY = Sampling(max_new_tokens=20)
DRAWN = Sampling(max_new_tokens=20, do_sample=True, temperature=1.2, top_p=0.9, top_k=50)
LENGTHS = [3, 17, 9, 9, 30, 4, 12, 3]
PROMPTS = [list(range(5 + row, 5 + row + length)) for row, length in enumerate(LENGTHS)]
GEMMA3 = (
    transformers.Gemma3TextConfig,
    {**zoo.GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6, "num_hidden_layers": 7},
)
"""Windows that are shorter than the prompts, in some layers."""
BLOOM = (transformers.BloomConfig, {"vocab_size": tiny.VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4})
"""No positions, but biases by distance."""
MAMBA = (
    transformers.MambaConfig,
    {"vocab_size": tiny.VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
)
CHUNKED = (
    transformers.Llama4TextConfig,
    {**zoo.GROUPED, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 32},
)


def engine(config: type, shape: dict) -> TransformersEngine:
    """An engine of a random model in fp32 whose answers vary and end at different places."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config(**shape)).float().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return TransformersEngine(model, tiny.tokenizer(), lambda conversation: [], stop_tokens=range(100, 130))


@pytest.fixture(scope="module")
def qwen() -> TransformersEngine:
    return engine(*zoo.ARCHITECTURES["qwen2"])


def together(asked: TransformersEngine, sampling: Sampling, rows: int = 64, numbers: range | None = None) -> list[str]:
    """Answers of the prompts by number, at most `rows` at once."""
    prompts = [Prompt(number, PROMPTS[number]) for number in numbers or range(len(PROMPTS))]
    made = {each.number: each.text for each in answers(asked, prompts, sampling, batch_size=rows)}
    return [made[prompt.number] for prompt in prompts]


def alone(asked: TransformersEngine, sampling: Sampling) -> list[str]:
    """What transformers' own `generate` says to one prompt after another."""
    texts = []
    for ids in PROMPTS:
        text = asked.text(sampling)
        texts.append("".join([*map(text.add, asked.generate([ids], sampling)[0]), text.end()]))
    return texts


@pytest.mark.parametrize("name", [*zoo.ARCHITECTURES, "gemma3", "bloom"])
def test_together_is_as_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batched.ROWS, "cpu", 1)
    asked = engine(*{"gemma3": GEMMA3, "bloom": BLOOM, **zoo.ARCHITECTURES}[name])
    assert trial(asked.model)
    expected = alone(asked, GREEDY)
    assert len(set(expected)) > 4
    for rows in (1, 3, 8):
        assert together(asked, GREEDY, rows) == expected, rows


@pytest.mark.parametrize("shape", [MAMBA, CHUNKED], ids=["recurrent", "chunked"])
def test_a_model_that_keeps_something_else_is_asked_by_its_own_generate(shape: tuple) -> None:
    asked = engine(*shape)
    assert trial(asked.model) is None
    assert together(asked, GREEDY) == alone(asked, GREEDY)


def test_a_trial_counts_what_a_token_keeps_and_leaves_the_model_as_it_was(qwen: TransformersEngine) -> None:
    kept = trial(qwen.model)
    layers, heads, width, parts, size = 2, 2, 8, 2, 4
    assert kept == layers * heads * width * parts * size
    qwen.model.train()
    together(qwen, GREEDY)
    assert qwen.model.training
    qwen.model.eval()


def test_what_is_drawn_depends_on_the_row_alone(qwen: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = together(qwen, DRAWN)
    assert together(qwen, DRAWN) == expected
    assert together(qwen, DRAWN, numbers=range(2, 6)) == expected[2:6]
    monkeypatch.setitem(batched.ROWS, "cpu", 1)
    assert together(qwen, DRAWN, rows=2) == expected
    assert together(qwen, dataclasses.replace(DRAWN, seed=7)) != expected
    assert together(qwen, GREEDY) != expected
    assert together(qwen, dataclasses.replace(DRAWN, temperature=0.0)) == together(qwen, GREEDY)


def test_what_a_recurrent_model_draws_depends_on_the_row_alone() -> None:
    asked = engine(*MAMBA)
    expected = together(asked, DRAWN)
    assert together(asked, DRAWN, numbers=range(2, 6)) == expected[2:6]


@pytest.mark.parametrize("change", [{"repetition_penalty": 1.7}, {"num_beams": 3}, {"max_new_tokens": 1}])
def test_other_options_are_as_alone(qwen: TransformersEngine, change: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batched.ROWS, "cpu", 1)
    sampling = dataclasses.replace(GREEDY, **change)
    assert alone(qwen, sampling) != alone(qwen, GREEDY)
    assert together(qwen, sampling, rows=3) == alone(qwen, sampling)


def test_an_answer_ends_before_a_stop_text(qwen: TransformersEngine) -> None:
    whole = together(qwen, GREEDY)
    stop = max(whole, key=len)[2:5]
    stopping = TransformersEngine(
        qwen.model, tiny.tokenizer(), lambda conversation: [], [stop], stop_tokens=range(100, 130)
    )
    assert stopping.stops.texts == (stop,)
    assert together(stopping, GREEDY) == [text.split(stop)[0] for text in whole] != whole


def test_no_row_grows_beyond_what_the_model_reads(qwen: TransformersEngine) -> None:
    most = qwen.longest
    prompts = [Prompt(0, [5] * (most - 3)), Prompt(1, [5] * most), Prompt(2, []), Prompt(3, [5, 6])]
    made = {each.number: each for each in answers(qwen, prompts, GREEDY, batch_size=2)}
    assert made[0].tokens <= 3 and made[1].tokens == made[2].tokens == 0
    assert made[1].text == "" == made[2].text and made[3].tokens > 0


def test_memory_bounds_how_many_rows_are_answered_at_once(
    qwen: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    step = batched._Asked.step

    def watched(self, tokens, slots):
        nonlocal most
        most = max(most, len(tokens))
        return step(self, tokens, slots)

    monkeypatch.setattr(batched._Asked, "step", watched)
    expected = together(qwen, GREEDY)
    assert most > 3
    most = 0
    longest = max(LENGTHS) + GREEDY.max_new_tokens
    monkeypatch.setitem(batched.ROOM, "cpu", trial(qwen.model) * longest)
    assert together(qwen, GREEDY, rows=3) == expected
    assert most == 3
