"""An optimizer's state survives safetensors and JSON bit for bit, for every optimizer of torch that trains here."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.log import RunError
from tunesmith.optim.state import load_optimizer_state, optimizer_state

MAKERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "adamw_loop": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=False),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adafactor": lambda p: torch.optim.Adafactor(p),
    "adamax": lambda p: torch.optim.Adamax(p),
    "asgd": lambda p: torch.optim.ASGD(p, t0=1.0),
    "nadam": lambda p: torch.optim.NAdam(p),
    "radam": lambda p: torch.optim.RAdam(p),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p),
    "muon": lambda p: torch.optim.Muon([(n, w) for n, w in p if w.ndim == 2]),
}


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    dtype = next(model.parameters()).dtype
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(6, 5, dtype=dtype)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_going_on_equals_never_stopping(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    straight = net(dtype)
    optimizer = MAKERS[name](straight.named_parameters())
    train(straight, optimizer, range(4))
    tensors, meta = optimizer_state(optimizer)
    save_file(tensors, tmp_path / "optimizer.safetensors")
    (tmp_path / "optimizer.json").write_text(json.dumps(meta))
    weights = {key: value.clone() for key, value in straight.state_dict().items()}
    train(straight, optimizer, range(4, 9))

    resumed = net(dtype)
    resumed.load_state_dict(weights)
    again = MAKERS[name](resumed.named_parameters())
    loaded = load_file(tmp_path / "optimizer.safetensors")
    load_optimizer_state(again, loaded, json.loads((tmp_path / "optimizer.json").read_text()))
    train(resumed, again, range(4, 9))
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    ends, ends_again = optimizer_state(optimizer)[0], optimizer_state(again)[0]
    assert ends.keys() == ends_again.keys()
    assert all(
        torch.equal(value, ends_again[key]) and value.dtype == ends_again[key].dtype for key, value in ends.items()
    )


def test_loading_copies() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.named_parameters())
    train(model, optimizer, range(1))
    tensors, meta = optimizer_state(optimizer)
    kept = {key: value.clone() for key, value in tensors.items()}
    load_optimizer_state(optimizer, kept, meta)
    before = {key: value.clone() for key, value in kept.items()}
    train(model, optimizer, range(1, 3))
    assert all(torch.equal(before[key], kept[key]) for key in kept)


def test_another_optimizer_or_weight_is_refused() -> None:
    model = net()
    adam = torch.optim.AdamW(model.named_parameters())
    train(model, adam, range(1))
    tensors, meta = optimizer_state(adam)
    with pytest.raises(RunError, match="optimizer is AdamW, this run's is SGD"):
        load_optimizer_state(torch.optim.SGD(model.named_parameters()), tensors, meta)
    fewer = torch.optim.AdamW([(n, p) for n, p in model.named_parameters() if n != "0.bias"])
    with pytest.raises(RunError, match=r"0\.bias"):
        load_optimizer_state(fewer, tensors, meta)
    wider = torch.optim.AdamW(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).named_parameters())
    with pytest.raises(RunError, match=r"0\.weight::exp_avg has shape \[4, 5\]"):
        load_optimizer_state(wider, tensors, meta)
