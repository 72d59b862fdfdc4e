"""Products in 8 bits are the exact ones but for what rounding to four significant bits allows, forward and back; on the CPU by
the same function of torch that a GPU computes with."""

from pathlib import Path

import pytest
import torch
import zoo
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith.models import float8
from tunesmith.models.tuning.fused import FusedLinear, fuse

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda" and torch.cuda.get_device_capability() < (8, 9):
    pytest.skip("this GPU has no fp8", allow_module_level=True)

HALF_A_STEP = 2.0**-4
"""How far e4m3's nearest number may be, as a share; three bits stand behind the first one."""
BETWEEN = 2.0**-10
"""The same of a row's scale, between its smallest numbers."""
RMS = 0.05
"""Root mean square of a product's error as a share of its own, of numbers of one size: each factor is off by 2^-4 / sqrt(3)
of itself where that is most, by 0.026 over all mantissas; two of them, independent, by 0.037."""


def made(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    return (size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).bfloat16().to(DEVICE)


def allowed(rows: Tensor) -> Tensor:
    """How far each number may be moved."""
    exact = rows.double().abs()
    return torch.maximum(HALF_A_STEP * exact, BETWEEN * exact.amax(1, keepdim=True) / float8.LARGEST)


def bound(rows: Tensor, weight: Tensor) -> Tensor:
    """How far rows @ weight' may be off when each number of both is rounded, and the result to bf16."""
    a, b, da, db = rows.double().abs(), weight.double().abs(), allowed(rows), allowed(weight)
    most = (a + da) @ (b + db).t() - a @ b.t()
    return 1.001 * most + 2.0**-8 * (a @ b.t() + most)


@pytest.mark.parametrize("size", [1.0, 3e-8, 2e4])
def test_a_product_is_off_by_its_roundings_alone(size: float) -> None:
    rows, weight = made(50, 64, seed=0, size=size), made(96, 64, seed=1, size=0.02)
    rows[3] *= 1e-3  # each row has its scale
    rows[4] = 0
    held, scales = float8.scaled(weight)
    exact = rows.double() @ weight.double().t()
    off = float8.product(rows, held.view(torch.uint8), scales).double() - exact
    assert (off.abs() <= bound(rows, weight)).all()
    assert not off[4].any()
    assert (off.norm(dim=1) <= RMS * exact.norm(dim=1)).all()
    assert off.norm() > RMS / 4 * exact.norm(), "this is not fp8"


def test_the_way_back_is_off_by_its_roundings_alone() -> None:
    """One form of a weight serves both ways: its scales of outputs go into the gradient."""
    grad, weight = made(50, 96, seed=2, size=1e-6), made(96, 64, seed=3, size=0.02)
    weight *= torch.logspace(-2, 2, 96, device=DEVICE)[:, None]  # outputs of very different sizes
    held, scales = float8.scaled(weight)
    exact = grad.double() @ weight.double()
    off = float8.product_back(grad, held.view(torch.uint8), scales).double() - exact
    inner = grad.float() * scales.t()
    assert (off.abs() <= bound(inner, (weight.double() / scales.double()).t())).all()
    assert (off.norm(dim=1) <= RMS * exact.norm(dim=1)).all()


def test_an_input_that_several_layers_read_is_scaled_once_and_anew_when_it_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scaled, counted = float8.scaled, list[int]()
    monkeypatch.setattr(float8, "scaled", lambda rows, *rest: counted.append(len(rows)) or scaled(rows, *rest))
    weights = [scaled(made(32, 64, seed=seed)) for seed in (1, 2, 3)]
    x = made(2, 25, 64, seed=0)
    first = [float8._Frozen.apply(x, *weight) for weight in weights]
    assert counted == [50] and [each.shape for each in first] == [(2, 25, 32)] * 3
    for one, weight in zip(first, weights, strict=True):
        assert torch.equal(one, float8.product(x.clone(), *weight))
    counted.clear()
    assert torch.equal(float8._Frozen.apply(x, *weights[0]), first[0]) and counted == [50]  # others came between
    x.mul_(2)
    assert torch.equal(float8._Frozen.apply(x, *weights[0]), 2 * first[0]) and counted == [50, 50]
    held = float8._last._made
    del x
    assert held is not None and float8._last._made is None


def test_what_is_no_number_stays_none() -> None:
    rows, weight = made(4, 16, seed=0), made(16, 16, seed=1)
    rows[1, 2], rows[2, 3] = torch.nan, torch.inf
    found = float8.product(rows, *float8.scaled(weight))
    assert found.isfinite().all(1).tolist() == [True, False, False, True]


def model_of(folder: Path, **adapter: object) -> PreTrainedModel | PeftModel:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    if not adapter:
        return base.to(DEVICE)
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **adapter)
    made = get_peft_model(base, config, autocast_adapter_dtype=True)
    zoo.shake(made)
    for weight in made.parameters():
        weight.data = weight.data.float() if weight.requires_grad else weight.data.bfloat16()
    return made.to(DEVICE)


def learned(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    ids = torch.arange(3, 43, device=DEVICE).view(2, 20)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {
        name: weight.grad.float() for name, weight in model.named_parameters() if weight.requires_grad
    }


@pytest.fixture(params=["qwen2", "phi3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return zoo.build(request.param, tmp_path)


@pytest.mark.parametrize("fused", [True, False])
def test_lora_learns_nearly_as_in_bf16(folder: Path, fused: bool) -> None:
    plain, short = model_of(folder, lora_dropout=0.0), model_of(folder, lora_dropout=0.0)
    files = get_peft_model_state_dict(short)
    if fused:
        fuse(short)
    count = sum(isinstance(module, nn.Linear) and "base_layer" in name for name, module in short.named_modules())
    assert float8.take(short) == count > 4
    assert any(isinstance(module, FusedLinear) for module in short.modules()) is fused
    after = get_peft_model_state_dict(short)
    assert {n: (t.dtype, t.shape) for n, t in after.items()} == {n: (t.dtype, t.shape) for n, t in files.items()}
    (loss, wanted), (near, found) = learned(plain), learned(short)
    assert 0 < (near - loss).abs() < 0.02 * loss
    off = sum(float((found[name] - wanted[name]).norm() ** 2) for name in wanted) ** 0.5
    assert off < 0.3 * sum(float(grad.norm() ** 2) for grad in wanted.values()) ** 0.5


def test_full_tuning_learns_nearly_as_in_bf16(folder: Path) -> None:
    plain, short = model_of(folder), model_of(folder)
    assert float8.take(short) > 4
    assert type(short.get_output_embeddings()) is nn.Linear
    (loss, wanted), (near, found) = learned(plain), learned(short)
    assert 0 < (near - loss).abs() < 0.02 * loss
    off = sum(float((found[name] - wanted[name]).norm() ** 2) for name in wanted) ** 0.5
    assert off < 0.3 * sum(float(grad.norm() ** 2) for grad in wanted.values()) ** 0.5


def test_fused_and_plain_lora_compute_the_same(folder: Path) -> None:
    gradients = []
    for fused in (False, True):
        model = model_of(folder, lora_dropout=0.0)
        if fused:
            fuse(model)
        float8.take(model)
        layer = next(m for m in model.modules() if isinstance(getattr(m, "base_layer", None), float8.Held))
        x = made(1, 9, layer.base_layer.in_features, seed=5).requires_grad_()
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            out = layer(x)
        out.float().square().sum().backward()
        gradients.append((out.detach().float(), x.grad.float()))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2 * float(other.abs().max()))


def test_frozen_weights_take_half_the_bytes(folder: Path) -> None:
    model = model_of(folder, lora_dropout=0.0)
    held = [module.base_layer.weight for module in model.modules() if hasattr(module, "base_layer")]
    before = sum(weight.nbytes for weight in held)
    float8.take(model)
    now = [m for m in model.modules() if isinstance(m, float8.Held)]
    assert sum(module.weight.nbytes for module in now) == before / 2


@pytest.mark.parametrize("names", [("gate", "router"), ("q_proj", "down_proj")])
def test_layers_that_choose_experts_and_odd_ones_stay(names: tuple[str, str], folder: Path) -> None:
    model = model_of(folder)
    mlp = next(module for name, module in model.named_modules() if name.endswith("mlp"))
    mlp.add_module(names[0], nn.Linear(16, 16))
    mlp.add_module(names[1] + "_odd", nn.Linear(16, 24))
    float8.take(model)
    assert isinstance(mlp.get_submodule(names[0]), float8.Scaled) is (names[0] == "q_proj")
    assert type(mlp.get_submodule(names[1] + "_odd")) is nn.Linear


def test_dora_s_bases_stay(folder: Path) -> None:
    assert float8.take(model_of(folder, use_dora=True)) == 0
