"""Compiled functions compute what they do uncompiled; where nothing can be compiled, that is said and nothing changes."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from tunesmith import compiled
from tunesmith.losses.linear import linear_cross_entropy
from tunesmith.models.elementwise import elements, lighten

CPU = torch.device("cpu")
SHAPE = {"vocab_size": 53, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def switched_off() -> Iterator[None]:
    yield
    compiled.switch_off()


def loss_and_gradients(dtype: torch.dtype, **options: object) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(n, 16, generator=random).to(dtype).requires_grad_() for n in (41, 53))
    targets = torch.randint(53, (41,), generator=random)
    loss = linear_cross_entropy(hidden, weight, targets, **options)
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]


def model_gradients(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(3)
    model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2)).to(dtype)
    assert lighten(model) == {"norms": 5, "gates": 2}
    ids = torch.arange(3, 27).view(2, 12)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def assert_near(found: list[Tensor], truth: list[Tensor], share: float) -> None:
    for one, other in zip(found, truth, strict=True):
        assert float((one.float() - other.float()).norm()) <= share * float(other.float().norm())


@pytest.mark.usefixtures("switched_off")
def test_compiled_functions_compute_the_same() -> None:
    cases = {
        "plain": lambda dtype: loss_and_gradients(dtype),
        "capped": lambda dtype: loss_and_gradients(dtype, scale=0.5, softcap=3.0, weights=torch.linspace(0, 1, 41)),
        "model": model_gradients,
    }
    truth = {name: case(torch.float32) for name, case in cases.items()}
    half = {name: case(torch.bfloat16) for name, case in cases.items()}
    assert compiled.switch_on(CPU)
    for name, case in cases.items():
        assert_near(case(torch.float32), truth[name], 1e-5)
        apart = [
            sum(float((one.float() - other).norm() ** 2) for one, other in zip(found, truth[name], strict=True)) ** 0.5
            for found in (half[name], case(torch.bfloat16))
        ]
        assert apart[1] <= 1.1 * apart[0]


@pytest.mark.usefixtures("switched_off")
def test_without_a_compiler_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler was found\nand more")

    before = loss_and_gradients(torch.float32)
    monkeypatch.setattr(torch, "compile", refuse)
    assert not compiled.switch_on(CPU)
    assert "no C++ compiler was found" in capsys.readouterr().err
    for one, other in zip(loss_and_gradients(torch.float32), before, strict=True):
        assert torch.equal(one, other)


def test_what_is_saved_grows_with_the_elements() -> None:
    assert 0 < compiled.earns(1e9, CPU) < compiled.earns(1e12, CPU)
    model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2))
    assert elements(model) == 0
    lighten(model)
    assert elements(model) == 5 * SHAPE["hidden_size"] + 2 * SHAPE["intermediate_size"]
