"""The loss from hidden states by each of the functions that there are, forward and back.  Knows functions of tensors; knows no
model."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gpu_work import Bench, wait
from torch import Tensor

from tunesmith import compiled
from tunesmith.losses.liger import liger_cross_entropy
from tunesmith.losses.linear import linear_cross_entropy

WARM, COUNTED = 2, 5

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Heard:
    """Milliseconds of one loss with its gradients, the memory it takes beside what it is given, and its value per token."""

    milliseconds: float
    gibibytes: float
    loss: float


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((hidden @ weight.t()).float(), targets, reduction="sum")


def torchs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Torch's own, from 2.13 on."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, targets, reduction="sum", options=options)


KERNELS: dict[str, tuple[Loss, bool]] = {
    "tunesmith": (linear_cross_entropy, False),
    "tunesmith, compiled": (linear_cross_entropy, True),
    "Liger": (liger_cross_entropy, False),
    "torch": (torchs, False),
    "whole logits": (plain, False),
}
"""Name -> function, and whether it is compiled."""


def hear(bench: Bench, model: str, kernel: str, *, trained_head: bool) -> Heard:
    """Measure a function at the places that two rows have, two thirds of their tokens, with the head of a model in bf16."""
    function, compiling = KERNELS[kernel]
    shape, device = bench.shapes[model], bench.device
    places = 2 * bench.row_tokens * 2 // 3
    made = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(places, shape.width, generator=made, device=device).bfloat16().requires_grad_()
    weight = (0.02 * torch.randn(shape.vocabulary, shape.width, generator=made, device=device)).bfloat16()
    weight.requires_grad_(trained_head)
    targets = torch.randint(shape.vocabulary, (places,), generator=made, device=device)
    compiled.switch_off()
    if compiling and not compiled.switch_on(device):
        raise RuntimeError("nothing can be compiled here")
    began, before, loss = 0.0, 0, hidden.new_zeros(())
    for turn in range(WARM + COUNTED):
        if turn == WARM:
            wait(device)
            began = time.perf_counter()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
        loss = function(hidden, weight, targets)
        loss.backward()
        hidden.grad = weight.grad = None
    wait(device)
    milliseconds = 1000 * (time.perf_counter() - began) / COUNTED
    taken = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    return Heard(milliseconds, taken / 2**30, float(loss.detach()) / places)
