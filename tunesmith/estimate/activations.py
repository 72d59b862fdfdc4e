"""What a layer keeps for the backward pass and needs while it computes, measured by running it once.  Knows a function from a
tensor to a tensor; knows no model."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tunesmith.estimate.layer import Layer
from tunesmith.estimate.live import Live


def measure(run: Callable[[Tensor], Tensor], given: Tensor, weights: Sequence[nn.Parameter]) -> Layer:
    """Runs the layer forward and backward on `given`.

    Gradients of the trained ones of `weights` are there beforehand, as in every micro-batch but a step's first, and are
    gone again afterwards; random states stay as they were.
    """
    trained = [weight for weight in weights if weight.requires_grad]
    assert all(weight.grad is None for weight in trained), "measured before anything is trained"
    devices = [given.device] if given.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        try:
            for weight in trained:
                weight.grad = torch.zeros_like(weight)
            given = given.detach().requires_grad_(True)
            given.grad = torch.zeros_like(given)
            with Live() as live:
                result = run(given)
                kept, forward = live.now, live.peak
                live.peak = live.now
                result.backward(torch.zeros_like(result))
        finally:
            for weight in trained:
                weight.grad = None
    return Layer(kept, forward, live.peak)
