"""Optimizers whose weights in training are not those that are meant: schedule-free ones mean an average.  Knows the package
`schedulefree` by its groups; knows no model and no file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

MODE = "train_mode"
"""What says in a group of schedulefree's in which of the two forms its weights are."""


def is_averaging(optimizer: Optimizer) -> bool:
    """Whether the weights that are meant are others than those that are trained."""
    return any(MODE in group for group in optimizer.param_groups)


def train(optimizer: Optimizer) -> None:
    """Have the optimizer take steps; nothing for one that does anyway."""
    if is_averaging(optimizer):
        _switch(optimizer).train()


@contextmanager
def meant(optimizer: Optimizer) -> Iterator[None]:
    """In the block the weights are those that are meant: for evaluation, and for what is saved for others.  Afterwards each
    bit of the trained ones is back, which takes a copy of them meanwhile."""
    if not is_averaging(optimizer):
        yield
        return
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    kept = [weight.detach().clone() for weight in weights]
    _switch(optimizer).eval()
    try:
        yield
    finally:
        _switch(optimizer).train()
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)


def _switch(optimizer: Optimizer) -> Any:
    """The optimizer as one of schedulefree's."""
    return optimizer
