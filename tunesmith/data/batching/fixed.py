"""A micro-batch filled up to one of few sizes, so that what was made for a size serves many.  Knows batches; knows no device.

Tokens are added as a piece of their own, at which no other looks; places that count nothing; and pieces without tokens.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from tunesmith.data.sample import Batch

PARTS = 8
"""Sizes from one power of two to the next: what is added is an eighth at the most."""

LEAST = 64
"""Of what sizes are multiples."""


def fixed(batch: Batch) -> Batch:
    """The same micro-batch of pieces behind one another, with `idle` places, each of its trained ones with its weight.
    What it costs, and each gradient, stay what they are."""
    assert batch.bounds is not None and batch.longest is not None, "pieces lie behind one another"
    assert batch.shared is None, "each piece looks at its own tokens alone"
    size, places = batch.input_ids.shape[1], len(batch.places)
    tokens, wanted = few(size), few(places)
    behind, idle = tokens - size, wanted - places
    pieces = power_of_two(len(batch.bounds))  # one more at the least than there are
    weights = torch.ones(places) if batch.target_weights is None else batch.target_weights
    return replace(
        batch,
        input_ids=F.pad(batch.input_ids, (0, behind)),
        attention_mask=F.pad(batch.attention_mask, (0, behind), value=1),
        position_ids=torch.cat([batch.position_ids, torch.arange(behind)[None]], dim=1),
        # Each at another token: gradients that meet at one are added up one after another.
        places=torch.cat([batch.places, torch.arange(tokens - idle, tokens)]),
        targets=F.pad(batch.targets, (0, idle)),
        target_weights=F.pad(weights, (0, idle)),
        bounds=F.pad(batch.bounds, (0, pieces + 1 - len(batch.bounds)), value=tokens),
        longest=power_of_two(max(batch.longest, behind)),
        idle=idle,
    )


def few(count: int) -> int:
    """The next of few sizes."""
    step = max(LEAST, (1 << max(0, count.bit_length() - 1)) // PARTS)
    return -(-count // step) * step


def power_of_two(count: int) -> int:
    """The next power of two."""
    return 1 << max(0, count - 1).bit_length()


def size_of(batch: Batch) -> tuple[int, ...]:
    """What batches of one size have in common: tokens, places, pieces, the longest piece."""
    assert batch.bounds is not None and batch.longest is not None, "pieces lie behind one another"
    return batch.input_ids.shape[1], len(batch.places), len(batch.bounds), batch.longest
