"""What optimizers keep, learned from small weights, is what they keep of the real ones."""

from typing import Any

import pytest
import torch
from torch import nn, optim

from tunesmith.estimate.live import Live
from tunesmith.estimate.state import state

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fused": (optim.AdamW, {"fused": True}),
    "one by one": (optim.AdamW, {"foreach": False}),
    "together": (optim.AdamW, {"foreach": True}),
    "amsgrad": (optim.Adam, {"amsgrad": True}),
    "sgd": (optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "rmsprop": (optim.RMSprop, {}),
}


@pytest.mark.parametrize(("kind", "arguments"), OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_torch(kind: Any, arguments: dict[str, Any], dtype: torch.dtype) -> None:
    weights = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((600, 300), (300,), (500, 40))]
    before = [weight.clone() for weight in weights]
    optimizer = kind(weights, **arguments)
    said = state(optimizer)
    assert not optimizer.state and all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = sum(value.nbytes for each in optimizer.state.values() for value in each.values() if torch.is_tensor(value))
    assert said.kept == pytest.approx(kept, rel=0.01)
    with Live() as live:
        optimizer.step()
    if arguments.get("foreach"):
        assert said.moving == pytest.approx(live.peak, rel=0.05) and live.peak > 0
