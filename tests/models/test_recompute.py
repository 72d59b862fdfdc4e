"""Recomputing layers changes no bit and keeps less."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from tunesmith.config.tuning import TuningConfig
from tunesmith.estimate.live import Live
from tunesmith.log import ModelError
from tunesmith.models import recompute
from tunesmith.models.elementwise import lighten
from tunesmith.models.precision import BY_NAME
from tunesmith.models.tuning import lora
from tunesmith.models.tuning.fused import fuse

Loaded = Callable[..., PreTrainedModel]
WAYS: list[recompute.Way] = ["everything", "selective", "offload"]


class Products(TorchDispatchMode):
    """Counts what matrix products multiply, those that are really computed."""

    sums = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in recompute.PRODUCTS:
            one, other = args[recompute.PRODUCTS[func] :][:2]
            self.sums += one.numel() * other.shape[-1]
        return func(*args, **(kwargs or {}))


def adapted(model: PreTrainedModel) -> torch.nn.Module:
    cfg = TuningConfig(lora_rank=4, lora_dropout=0.3)
    torch.manual_seed(1)
    tuned = lora.apply(model, cfg, precision=BY_NAME["fp32"])
    zoo.shake(tuned)
    fuse(tuned, in_place=False)
    lighten(tuned)
    return tuned


def passed(model: torch.nn.Module) -> tuple[Tensor, dict[str, Tensor], int, int]:
    """Loss, gradients, what is alive after the forward pass, and the products computed going back."""
    ids = torch.randint(3, 600, (2, 40), generator=torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    with Live() as live:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        kept = live.now
    with Products() as products:
        loss.backward()
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.detach(), grads, kept, products.sums


@pytest.mark.parametrize("tuning", [lambda model: model, adapted], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gpt2", "phi3"])
def test_no_bit_changes_and_less_is_kept(
    name: str, tuning: Callable, folder_of: Callable[[str], Path], loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`selective` keeps more than the others, and computes fewer products again."""
    monkeypatch.setattr(recompute, "WIDE", 16)
    plain = passed(tuning(loaded(folder_of(name))))
    found = {}
    for way in WAYS:
        model = loaded(folder_of(name))
        recompute.recompute(model, way)
        found[way] = passed(tuning(model))
        assert torch.equal(found[way][0], plain[0])
        assert found[way][1].keys() == plain[1].keys()
        assert all(torch.equal(grad, plain[1][name]) for name, grad in found[way][1].items())
    assert found["everything"][2] < found["selective"][2] < plain[2]
    assert plain[3] <= found["selective"][3] < found["everything"][3]


def test_the_lowest_layers_alone(folder_of: Callable[[str], Path], loaded: Loaded) -> None:
    model = loaded(folder_of("qwen2"))
    kept = []
    for lowest in (0, 1, 2):
        recompute.recompute(model, lowest=lowest)
        assert [layer.gradient_checkpointing for layer in model.model.layers] == [lowest > 0, lowest > 1]
        model.zero_grad()
        kept.append(passed(model)[2])
    assert kept[0] > kept[1] > kept[2]


def test_a_model_that_cannot_is_refused(folder_of: Callable[[str], Path], loaded: Loaded) -> None:
    model = loaded(folder_of("qwen2"))
    model.model.layers[0] = torch.nn.Identity()
    with pytest.raises(ModelError, match="gradient_checkpointing: Qwen2ForCausalLM does not support selective"):
        recompute.recompute(model, "selective")
