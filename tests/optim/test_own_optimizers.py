"""The optimizers that are written here: steps worked out by hand, and which weights they move how."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith import catalog
from tunesmith.config.optim import OptimConfig
from tunesmith.log import MissingExtra, OptionError
from tunesmith.optim import averaged
from tunesmith.optim.build import build

LINE = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
"""A gradient of rank 1 and length 5; its one direction is (0.6, 0.8)."""


def step(
    name: str, grad: Tensor, group: dict[str, Any], before: float = 0.0, times: int = 1, **arguments: Any
) -> Tensor:
    """How far the optimizer moves a matrix, in learning rates of 1."""
    weight = nn.Parameter(torch.full_like(grad, before))
    optimizer = catalog.find("optimizer", name)([{"params": [("w", weight)], **group}], lr=1.0, eps=1e-12, **arguments) \
        if name != "galore_adafactor" else catalog.find("optimizer", name)([{"params": [("w", weight)], **group}], lr=1.0, **arguments)  # fmt: skip
    for _ in range(times):
        weight.grad = grad.clone()
        optimizer.step()
    return before - weight.detach()


def test_galore_is_adam_along_the_gradients_directions() -> None:
    """Projected, the gradient is (5, 0) or (-5, 0); Adam's first step makes 1 of each number; back, it is the direction."""
    for side in ("std", "right", "reverse_std", "left", "full"):
        moved = step("galore_adamw", LINE, {"rank": 1, "proj_type": side, "scale": 2.0})
        if side in ("std", "right", "full"):
            torch.testing.assert_close(moved, torch.tensor([[1.2, 1.6], [0.0, 0.0]]))
        else:  # of rows there is one direction, (1, 0); the gradient in it is (3, 4), and Adam makes (1, 1) of it
            torch.testing.assert_close(moved, torch.tensor([[2.0, 2.0], [0.0, 0.0]]))
    moved = step("galore_adafactor", LINE, {"rank": 1, "scale": 2.0})
    torch.testing.assert_close(moved, torch.tensor([[1.2, 1.6], [0.0, 0.0]]))


def test_galore_keeps_little_and_looks_for_directions_when_it_is_time() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(40, 30))
    optimizer = catalog.find("optimizer", "galore_adamw")(
        [{"params": [weight], "rank": 4, "update_interval": 2}], lr=1.0
    )
    found = []
    for _ in range(3):
        weight.grad = torch.randn(40, 30)
        optimizer.step()
        found.append(optimizer.state[weight]["right"].clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
    assert {name: tuple(one.shape) for name, one in optimizer.state[weight].items() if torch.is_tensor(one)} == {
        "right": (4, 30), "exp_avg": (40, 4), "exp_avg_sq": (40, 4),
    }  # fmt: skip


def test_apollo_scales_the_gradient_as_adam_would() -> None:
    """In the strongest direction a row's 5 becomes 1: the row is divided by 5, and multiplied by the root of the scale."""
    settings = {"rank": 1, "proj": "svd", "scale": 4.0}
    expected = torch.tensor([[1.2, 1.6], [0.0, 0.0]])
    torch.testing.assert_close(step("apollo_adamw", LINE, settings), expected)
    torch.testing.assert_close(step("apollo_adamw", LINE, settings | {"scale_type": "tensor"}), expected)
    torch.testing.assert_close(step("apollo_adamw", LINE, settings | {"scale_front": True}), expected)
    # At random: each row is still divided by what Adam sees of it, so the same row twice as long moves as far.
    twice = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
    moved = step("apollo_adamw", twice, {"rank": 1, "scale": 1.0})
    torch.testing.assert_close(moved[0], moved[1])
    assert torch.equal(moved, step("apollo_adamw", twice, {"rank": 1, "scale": 1.0}))
    assert not torch.allclose(moved, step("apollo_adamw", twice, {"rank": 1, "scale": 1.0, "seed": 1}))


def test_apollos_steps_grow_slowly() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = catalog.find("optimizer", "apollo_adamw")([{"params": [weight], "rank": 1, "proj": "svd"}], lr=1.0)
    lengths = []
    for size in (1e-3, 1e3, 1e3):
        before = weight.detach().clone()
        weight.grad = LINE * size
        optimizer.step()
        lengths.append(float((weight - before).norm()))
    assert lengths[1] <= 1.0101 * lengths[0] and lengths[2] <= 1.0101 * lengths[1]


def test_adam_mini_has_one_square_for_each_block() -> None:
    grad = torch.tensor([[1.0, 7.0], [3.0, 4.0]])  # means of squares: 25, 12.5; of all: 18.75
    rows = torch.tensor([[25.0], [12.5]]).sqrt()
    torch.testing.assert_close(step("adam_mini", grad, {"blocks": -1}), grad / rows)
    torch.testing.assert_close(step("adam_mini", grad, {"blocks": 1}), grad / 18.75**0.5)
    torch.testing.assert_close(step("adam_mini", grad, {"blocks": 0}), torch.ones(2, 2))


def test_grokadamw_hears_slow_gradients_and_each_weight_later() -> None:
    """A first step is Adam's; of the second weight the mean moves 1 - 0.9 x 0.9 = 0.19 instead of 0.1 of the way."""
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = catalog.find("optimizer", "grokadamw")(weights, lr=1.0, eps=1e-12)
    for weight in weights:
        weight.grad = torch.tensor([0.5])
    optimizer.step()
    assert [float(-weight) for weight in weights] == pytest.approx([1.0, 1.9])
    assert float(optimizer.state[weights[0]]["grok_ema"]) == pytest.approx(0.02 * 0.5)
    assert float(optimizer.state[weights[0]]["exp_avg"]) == pytest.approx(0.1 * (0.5 + 2 * 0.01))


def test_muon_is_torchs_on_matrices_and_adamw_elsewhere() -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"embed": nn.Embedding(5, 4), "layer": nn.Linear(4, 6)})

    ours, theirs = net(), net()
    optimizer = build(ours, OptimConfig(optim="muon", learning_rate=0.1, weight_decay=0.01))
    matrix, bias, table = theirs["layer"].weight, theirs["layer"].bias, theirs["embed"].weight
    others = [
        torch.optim.Muon([matrix], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([bias], lr=0.1, weight_decay=0.0),
        torch.optim.AdamW([table], lr=0.1, weight_decay=0.01),
    ]
    for seed in range(3):
        for model, steppers in ((ours, [optimizer]), (theirs, others)):
            torch.manual_seed(seed)
            for weight in (model["embed"].weight, model["layer"].weight, model["layer"].bias):
                weight.grad = torch.randn_like(weight)
            for one in steppers:
                one.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def language_model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


def settings(optimizer: torch.optim.Optimizer, key: str) -> dict[str, Any]:
    return {name: group[key] for group in optimizer.param_groups for name in group["param_names"]}


def test_what_is_projected_and_what_is_a_block(tiny_model: Path) -> None:
    model = language_model(tiny_model)
    ranks = settings(build(model, OptimConfig(optim="galore_adamw", galore_target=["q_proj", r".*\.1\.mlp.*"])), "rank")
    assert {name for name, rank in ranks.items() if rank} == {
        *(f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)),
        *(f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    everything = settings(build(model, OptimConfig(optim="apollo_adamw", optim_args={"rank": 3})), "rank")
    assert {rank for name, rank in everything.items() if "_proj.weight" in name} == {3}
    assert {rank for name, rank in everything.items() if "_proj.weight" not in name} == {0}
    mini = settings(build(model, OptimConfig(optim="adam_mini")), "blocks")
    config = model.config
    assert mini["model.layers.0.self_attn.q_proj.weight"] == config.num_attention_heads
    assert mini["model.layers.0.self_attn.k_proj.weight"] == config.num_key_value_heads
    assert mini["model.layers.0.self_attn.q_proj.bias"] == 0 and mini["model.norm.weight"] == 1
    assert mini["model.embed_tokens.weight"] == -1
    muon = settings(build(model, OptimConfig(optim="muon")), "muon")
    assert muon["model.layers.0.mlp.up_proj.weight"] and not muon["model.embed_tokens.weight"]
    with pytest.raises(OptionError, match=r"galore_target: matches no linear layer; there are .*q_proj.*; or all"):
        build(model, OptimConfig(optim="galore_adamw", galore_target=["query"]))


ORDERS = {
    "ascending": [0, 0, 1, 1, 0],
    "descending": [1, 1, 0, 0, 1],
    "fixed": [0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("mode", ORDERS)
def test_badam_moves_one_layer_after_another(tiny_model: Path, mode: str) -> None:
    model = language_model(tiny_model)
    optimizer = build(model, OptimConfig(optim="badam", badam_switch_mode=mode, badam_switch_interval=2))
    moved = []
    for _ in range(5):
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        model(input_ids=torch.arange(6)[None], labels=torch.arange(6)[None]).loss.backward()
        have = {name for name, weight in model.named_parameters() if weight.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
        assert have == changed and len(changed) > 5
        layers = {int(name.split(".")[2]) for name in changed}
        assert len(layers) == 1 and len(optimizer.state) == len(changed)
        moved += layers
    assert moved == ORDERS[mode]


def test_badam_by_ratio_moves_so_many_entries(tiny_model: Path) -> None:
    for mask in ("adjacent", "scatter"):
        model = language_model(tiny_model)
        optimizer = build(
            model, OptimConfig(optim="badam", badam_mode="ratio", badam_update_ratio=0.1, badam_mask_mode=mask)
        )
        weight, table = model.model.layers[0].mlp.up_proj.weight, model.get_input_embeddings().weight
        before, untouched = weight.detach().clone(), table.detach().clone()
        model(input_ids=torch.arange(6)[None], labels=torch.arange(6)[None]).loss.backward()
        optimizer.step()
        changed = (weight != before).flatten().nonzero().flatten()
        assert len(changed) == int(weight.numel() * 0.1)
        assert (int(changed.max()) == len(changed) - 1) == (mask == "adjacent")
        assert torch.equal(table, untouched)
        assert optimizer.state[weight]["exp_avg"].shape == (len(changed),)


def test_what_is_wrong_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model(tiny_model)
    with pytest.raises(OptionError, match="start_block must be one of 0 to 1, got 7"):
        build(model, OptimConfig(optim="badam", badam_start_block=7))
    with pytest.raises(OptionError, match="no argument 'rnk'; did you mean 'rank'"):
        build(model, OptimConfig(optim="galore_adamw", optim_args={"rnk": 7}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"adamw_8bit: bitsandbytes is not installed; pip install 'tunesmith\[bitsandbytes\]'"
    ):
        build(model, OptimConfig(optim="adamw_8bit"))


def test_schedule_free_weights_are_averages_for_others_only() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = build(model, OptimConfig(optim="schedule_free_adamw", learning_rate=0.1))
    for _ in range(4):
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with averaged.meant(optimizer):
        # x = (y - (1 - beta) z) / beta, from y = (1 - beta) z + beta x.
        z = optimizer.state[model.weight]["z"]
        torch.testing.assert_close(model.weight.detach(), (trained["weight"] - 0.1 * z) / 0.9)
    assert all(torch.equal(weight, trained[name]) for name, weight in model.named_parameters())
    assert optimizer.param_groups[0]["train_mode"]
