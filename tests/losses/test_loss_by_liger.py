"""Liger's loss from hidden states is ours: value and gradients.  Without a GPU, in Triton's interpreter."""

import interpreted
import pytest
import torch
from interpreted import DEVICE
from torch import Tensor

from tunesmith.losses.liger import liger_cross_entropy
from tunesmith.losses.linear import linear_cross_entropy


def found(
    function: object, scale: float, cap: float | None, with_bias: bool, weighted: bool, dtype: torch.dtype
) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    parts = (
        torch.randn(41, 16, generator=random),
        torch.randn(53, 16, generator=random),
        torch.randn(53, generator=random),
    )
    hidden, weight, bias = (each.to(DEVICE, dtype).requires_grad_() for each in parts)
    targets = torch.randint(53, (41,), generator=random).to(DEVICE)
    counts = torch.rand(41, generator=random).to(DEVICE) if weighted else None
    assert callable(function)
    loss = function(hidden, weight, targets, bias=bias if with_bias else None, weights=counts, scale=scale, softcap=cap)
    (loss * 0.7).backward()
    return [loss.detach(), *(each.grad for each in (hidden, weight, bias) if each.grad is not None)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, None), (1.0, 3.0), (2.0, 5.0)])
def test_value_and_gradients_are_ours(
    monkeypatch: pytest.MonkeyPatch, scale: float, cap: float | None, with_bias: bool, weighted: bool
) -> None:
    interpreted.liger(monkeypatch)
    ours = found(linear_cross_entropy, scale, cap, with_bias, weighted, torch.float32)
    theirs = found(liger_cross_entropy, scale, cap, with_bias, weighted, torch.float32)
    assert theirs[0].dtype == torch.float32
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
