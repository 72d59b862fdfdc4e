"""An optimizer's state survives safetensors and JSON bit for bit, for every optimizer of torch that trains here."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.config.optim import OptimConfig
from tunesmith.estimate.state import state
from tunesmith.log import RunError
from tunesmith.optim.build import build
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


OURS = {
    "muon": {},
    "adam_mini": {},
    "galore_adamw": {"galore_rank": 2, "galore_update_interval": 3},
    "galore_adafactor": {"galore_rank": 2, "galore_update_interval": 3, "galore_proj_type": "full"},
    "apollo_adamw": {"apollo_rank": 2, "apollo_update_interval": 3},
    "badam": {"badam_switch_interval": 3, "badam_switch_mode": "random"},
    "badam, ratio": {"badam_mode": "ratio", "badam_update_ratio": 0.3, "badam_mask_mode": "scatter"},
    "grokadamw": {},
    "stable_adamw": {},
    "schedule_free_adamw": {},
    "schedule_free_radam": {},
    "schedule_free_sgd": {},
    "adamw_torch_8bit": {},
    "adamw_torch_4bit": {},
    "adamw_8bit": {},
    "paged_adamw_32bit": {},
    "paged_adamw_8bit": {},
    "lion_32bit": {},
    "lion_8bit": {},
    "paged_lion_8bit": {},
    "ademamix": {},
    "rmsprop_bnb": {},
    "rmsprop_bnb_8bit": {},
}


class Layered(nn.Module):
    """Two layers, a norm and a bias; matrices as large as those of which 8 or 4 bits are kept per entry."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList([nn.Linear(64, 96, bias=False), nn.Linear(96, 64)])
        self.norm = nn.LayerNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layers[1](self.layers[0](x).tanh()))


def moved(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        model(torch.randn(6, 64)).pow(3).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", OURS)
def test_going_on_with_one_of_ours_equals_never_stopping(name: str, tmp_path: Path) -> None:
    if "torch_" in name:
        pytest.importorskip("torchao")  # not installed with the rest, since peft would load it in every process
    cfg = OptimConfig(optim=name.split(",")[0], learning_rate=1e-2, weight_decay=0.1, **OURS[name])
    straight, resumed = Layered(), Layered()
    first = {key: value.clone() for key, value in straight.named_parameters()}
    optimizer = build(straight, cfg)
    state(optimizer)  # the memory of a step is told before it, and changes nothing
    assert not optimizer.state or all(not entries for entries in optimizer.state.values())
    moved(straight, optimizer, range(7))
    assert sum(not torch.equal(first[key], value) for key, value in straight.named_parameters()) >= 2
    tensors, meta = optimizer_state(optimizer)
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "optimizer.safetensors")
    meta = json.loads(json.dumps(meta))
    resumed.load_state_dict(straight.state_dict())
    moved(straight, optimizer, range(7, 12))
    again = build(resumed, cfg)
    load_optimizer_state(again, load_file(tmp_path / "optimizer.safetensors"), meta)
    moved(resumed, again, range(7, 12))
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    ends, ends_again = optimizer_state(optimizer), optimizer_state(again)
    assert ends[1] == ends_again[1]
    assert ends[0].keys() == ends_again[0].keys()
    assert all(torch.equal(value, ends_again[0][key]) for key, value in ends[0].items())


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
