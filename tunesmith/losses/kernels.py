"""Which of the functions that compute cross-entropy from hidden states is the fastest here: those that are there are compared
with ours, then timed.  Knows tensors; knows no model and no run."""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.losses.liger import liger_cross_entropy
from tunesmith.losses.linear import linear_cross_entropy

Kernel = Callable[..., Tensor]
"""Called as `linear_cross_entropy` is."""

Timed = Callable[[str, Callable[[], object]], float]
"""A kernel's name and a call of it -> seconds that the call takes."""

OURS = "tunesmith"

WARM, COUNTED = 2, 3

APART = {torch.float32: 1e-5, torch.bfloat16: 1e-4, torch.float16: 1e-4}
"""How far a loss may be from ours, as a share: both sum in fp32."""
GRADIENTS_APART = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""The same of gradients, by their length: they are rounded to the format they are computed in."""


def torch_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    weights: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """What `linear_cross_entropy` computes, by torch's function of that name, which rounds the sum to the format of the hidden
    states (bf16 holds three digits; so a trial refuses it there).  Tokens that count differently, a scale and a
    soft limit are beyond it and computed by ours."""
    if weights is not None or scale != 1.0 or softcap is not None or not len(hidden):
        return linear_cross_entropy(hidden, weight, targets, bias=bias, weights=weights, scale=scale, softcap=softcap)
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        loss: Tensor = F.linear_cross_entropy(
            hidden.to(dtype),
            weight.to(dtype),
            targets,
            linear_bias=None if bias is None else bias.to(dtype),
            reduction="sum",
            options=torch.nn.LinearCrossEntropyOptions(),
        )
    return loss.float()


KERNELS: dict[str, Kernel] = {OURS: linear_cross_entropy, "liger": liger_cross_entropy, "torch": torch_cross_entropy}


@dataclass(slots=True)
class Choice:
    """`milliseconds`: of each that computes the same; `refused`: why each other is left out."""

    name: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def there(kind: str) -> list[str]:
    """Names of those that can run on a kind of device."""
    found = [OURS]
    if kind == "cuda" and importlib.util.find_spec("liger_kernel") is not None:
        found.append("liger")
    return [*found, "torch"] if "linear_cross_entropy" in dir(F) else found  # from torch 2.13 on


def choose(
    names: Iterable[str],
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    timed: Timed,
) -> Choice:
    """The fastest of the named kernels on these shapes, ours among them; tensors as of `linear_cross_entropy`, none of which
    is changed.  One that differs from ours, fails or has no room is left out."""
    given = (hidden.detach().requires_grad_(), weight.detach().requires_grad_(weight.requires_grad), targets)

    def once(name: str) -> list[Tensor]:
        loss = KERNELS[name](*given, bias=bias, scale=scale, softcap=softcap)
        loss.backward()
        found = [loss.detach(), *(each.grad for each in given[:2] if each.grad is not None)]
        given[0].grad = given[1].grad = None
        return found

    choice = Choice(OURS)
    truth = once(OURS)
    for name in dict.fromkeys((OURS, *names)):
        try:
            if name != OURS and (reason := _difference(once(name), truth, hidden.dtype)) is not None:
                choice.refused[name] = reason
                continue
            choice.milliseconds[name] = 1000 * timed(name, partial(once, name))
        except Exception as problem:  # kernels fail in many classes, and ours is always there
            choice.refused[name] = f"{type(problem).__name__}"
            given[0].grad = given[1].grad = None
    choice.name = min(choice.milliseconds, key=choice.milliseconds.__getitem__, default=OURS)
    return choice


def clock(device: torch.device) -> Timed:
    """Times a call by the device's own clock, the least of a few."""

    def timed(name: str, call: Callable[[], object]) -> float:
        seconds = []
        for turn in range(WARM + COUNTED):
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record(torch.cuda.current_stream(device))
            call()
            ended.record(torch.cuda.current_stream(device))
            ended.synchronize()
            if turn >= WARM:
                seconds.append(began.elapsed_time(ended) / 1000)
        return min(seconds)

    return timed


def _difference(found: list[Tensor], truth: list[Tensor], dtype: torch.dtype) -> str | None:
    if not abs(float(found[0] - truth[0])) <= APART[dtype] * abs(float(truth[0])):
        return "another loss"
    for one, other in zip(found[1:], truth[1:], strict=True):
        if not float((one.float() - other.float()).norm()) <= GRADIENTS_APART[dtype] * float(other.float().norm()):
            return "other gradients"
    return None
