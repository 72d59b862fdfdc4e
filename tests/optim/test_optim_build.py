"""Optimizers: which weights are grouped how, what is refused, and that torch's own gives the same step."""

import pytest
import torch
from torch import nn

from tunesmith.config.optim import OptimConfig
from tunesmith.log import OptionError
from tunesmith.optim.build import build


class Net(nn.Module):
    """Linear layers, a norm, an embedding, and parameters named as peft names LoRA's."""

    def __init__(self, lora: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(7, 4)
        self.fc = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)} if lora else {})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 3, bias=False)} if lora else {})
        self.lora_embedding_A = nn.ParameterDict({"default": nn.Parameter(torch.ones(2, 7))} if lora else {})

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        y = self.fc(x)
        for first, second in zip(self.lora_A.values(), self.lora_B.values(), strict=True):
            y = y + second(first(x))
        return self.norm(y).square().sum()


def wrapped(lora: bool = False) -> nn.Module:
    """The net one level down, so that names have dots as in a real model."""
    return nn.ModuleDict({"layer": Net(lora)})


def settings(optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    return {
        name: (group["lr"], group.get("weight_decay", 0.0))
        for group in optimizer.param_groups
        for name in group["param_names"]
    }


def test_decay_spares_vectors_and_norms() -> None:
    found = settings(build(wrapped(), OptimConfig(weight_decay=0.1, learning_rate=1e-3)))
    assert found == {
        "layer.embed.weight": (1e-3, 0.1),
        "layer.fc.weight": (1e-3, 0.1),
        "layer.fc.bias": (1e-3, 0.0),
        "layer.norm.weight": (1e-3, 0.0),
        "layer.norm.bias": (1e-3, 0.0),
    }


def test_loraplus_and_lora_learning_rate() -> None:
    cfg = OptimConfig(learning_rate=1e-5, lora_learning_rate=1e-4, loraplus_lr_ratio=16.0, loraplus_lr_embedding=2e-6)
    found = {name: lr for name, (lr, _) in settings(build(wrapped(lora=True), cfg)).items()}
    assert found["layer.fc.weight"] == 1e-5
    assert found["layer.lora_A.default.weight"] == 1e-4
    assert found["layer.lora_B.default.weight"] == 1e-4 * 16
    assert found["layer.lora_embedding_A.default"] == 2e-6


def test_frozen_weights_are_left_out() -> None:
    model = wrapped(lora=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name
    assert all("lora_" in name for name in settings(build(model, OptimConfig())))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loraplus_lr_ratio": 16.0}, "loraplus_lr_ratio: no LoRA"),
        ({"lora_learning_rate": 1e-4}, "lora_learning_rate: no LoRA"),
        ({"optim": "sgd", "optim_args": {"momentun": 0.9}}, "did you mean 'momentum'"),
        ({"optim": "sgd", "optim_args": {"lr": 0.9}}, "the option learning_rate"),
        ({"optim_args": {"eps": 1e-6}}, "the option adam_epsilon"),
        ({"optim": "sgd", "optim_args": {"momentum": -1.0}}, "refuses its arguments"),
        ({"optim": "sgd", "optim_args": {"momentum": "much"}}, "refuses its arguments"),
        ({"optim": "adamw_torhc"}, "adamw_torch"),
    ],
)
def test_refusals(options: dict, said: str) -> None:
    with pytest.raises(OptionError, match=r"optim|lora") as refusal:
        build(wrapped(), OptimConfig(**options))
    assert said in str(refusal.value)


def test_nothing_trained_is_refused() -> None:
    with pytest.raises(OptionError, match="no weight"):
        build(wrapped().requires_grad_(False), OptimConfig())


def test_one_adamw_step_is_torchs() -> None:
    ours, theirs = wrapped(), wrapped()
    cfg = OptimConfig(learning_rate=1e-2, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-7)
    pairs = [
        (ours, build(ours, cfg)),
        (theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.8, 0.95), eps=1e-7, weight_decay=0)),
    ]
    for model, optimizer in pairs:
        for _ in range(3):
            optimizer.zero_grad()
            model["layer"](torch.tensor([1, 2, 3])).backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_decay_of_adam_is_decoupled() -> None:
    """With no gradient at all, decoupled decay shrinks a weight by lr x decay; L2 decay would move it by about lr."""
    model = wrapped()
    before = model["layer"].fc.weight.detach().clone()
    optimizer = build(model, OptimConfig(optim="adam", learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model["layer"].fc.weight, before * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adamw_torch"])
def test_weights_of_16_bits_move_alike_each_time(name: str) -> None:
    """Torch's one-kernel step of SGD gives their momentum other bits each time."""
    found = set()
    cfg = OptimConfig(optim=name, optim_args={"momentum": 0.9} if name == "sgd" else {})
    for attempt in range(20):
        kept = [torch.randn(attempt * 13 + 5) for _ in range(5)]  # memory lies elsewhere
        torch.manual_seed(0)
        net = nn.Linear(96, 4, bias=False).bfloat16()
        made = build(net, cfg)
        del kept
        for _ in range(3):
            net.weight.grad = torch.randn(4, 96).bfloat16()
            made.step()
        moved = [net.weight.detach(), *(one for one in made.state[net.weight].values() if one.ndim)]
        found.add(b"".join(one.contiguous().view(torch.uint8).numpy().tobytes() for one in moved))
    assert len(found) == 1
