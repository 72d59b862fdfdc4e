"""Of the functions that compute the loss, the fastest that agrees is chosen, by whatever clock."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tunesmith.losses import kernels
from tunesmith.losses.linear import linear_cross_entropy


def shapes(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 16, generator=random), torch.randn(53, 16, generator=random)
    return hidden.to(dtype), weight.to(dtype).requires_grad_(), torch.randint(53, (40,), generator=random)


def clock(**seconds: float) -> kernels.Timed:
    def timed(name: str, call: Callable[[], object]) -> float:
        call()
        return seconds[name]

    return timed


def test_torch_s_function_is_ours() -> None:
    hidden, weight, targets = shapes()
    found = []
    for function in (kernels.torch_cross_entropy, linear_cross_entropy):
        given = (hidden.clone().requires_grad_(), weight.detach().clone().requires_grad_())
        loss = function(*given, targets)
        (0.7 * loss).backward()
        found.append((loss.detach(), given[0].grad, given[1].grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"scale": 0.5}, {"softcap": 3.0}, {"weights": torch.rand(40)}])
def test_what_it_does_not_know_ours_computes(options: dict[str, object]) -> None:
    hidden, weight, targets = shapes()
    found = kernels.torch_cross_entropy(hidden, weight, targets, **options)
    assert torch.equal(found, linear_cross_entropy(hidden, weight, targets, **options))


@pytest.mark.parametrize(("ours", "theirs", "chosen"), [(1.0, 0.5, "torch"), (0.5, 1.0, "tunesmith")])
def test_the_fastest_is_chosen(ours: float, theirs: float, chosen: str) -> None:
    hidden, weight, targets = shapes()
    choice = kernels.choose(["tunesmith", "torch"], hidden, weight, targets, timed=clock(tunesmith=ours, torch=theirs))
    assert choice.name == chosen and not choice.refused
    assert choice.milliseconds == {"tunesmith": 1000 * ours, "torch": 1000 * theirs}
    assert weight.grad is None and hidden.grad is None and not hidden.requires_grad


def test_what_computes_anything_else_or_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    def detached(hidden: Tensor, weight: Tensor, *rest: object, **options: object) -> Tensor:
        return linear_cross_entropy(hidden, 1.0 * weight, *rest, **options) + 0.1 * (hidden - hidden.detach()).sum()

    for name, function in (
        ("half", lambda *given, **options: 0.999 * linear_cross_entropy(*given, **options)),
        ("steeper", detached),
        ("full", fails),
    ):
        monkeypatch.setitem(kernels.KERNELS, name, function)
    choice = kernels.choose(["half", "steeper", "full"], *shapes(), timed=clock(tunesmith=1.0))
    assert choice.name == "tunesmith"
    assert choice.refused == {"half": "another loss", "steeper": "other gradients", "full": "OutOfMemoryError"}


def test_torch_s_is_left_out_where_it_rounds_the_sum() -> None:
    random = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(500, 64, generator=random), 0.02 * torch.randn(512, 64, generator=random)
    targets = torch.randint(512, (500,), generator=random)
    choice = kernels.choose(["torch"], hidden.bfloat16(), weight.bfloat16(), targets, timed=clock(tunesmith=1.0))
    assert choice.refused == {"torch": "another loss"}
