"""What a device holds when several share the states of a model: DDP, ZeRO 1 to 3, FSDP, and offloading to the host.  Knows
terms of memory; knows no process.

ZeRO: arXiv:1910.02054, section 5; full sharding (FSDP) holds what stage 3 does.
"""

from dataclasses import replace

from tunesmith.estimate.memory import Memory

WAYS = ("ddp", "zero1", "zero2", "zero3", "fsdp", "offload")
"""Names, from what shares least to what shares most; `offload`: as zero3, the optimizer's states in the host's memory."""

AT_ONCE = 2
"""Layers that are whole on every device at one time: the one that is computed, and the next on its way."""


def shared(memory: Memory, way: str, devices: int, layers: int) -> Memory:
    """One device's part of a step that takes `memory` where nothing is shared (of gradients, once)."""
    assert way in WAYS, way
    if way == "ddp":
        return replace(memory, gradients=memory.gradients * (2 if devices > 1 else 1))  # and what travels
    whole = memory.weights + memory.adapters
    optimizer = 0 if way == "offload" else _part(memory.optimizer, devices)
    gradients = memory.gradients if way == "zero1" else _part(memory.gradients, devices)
    if way in ("zero1", "zero2"):
        return replace(memory, optimizer=optimizer, gradients=gradients)
    return replace(
        memory,
        weights=_part(memory.weights, devices),
        adapters=_part(memory.adapters, devices),
        gradients=gradients,
        optimizer=optimizer,
        workspace=memory.workspace + min(AT_ONCE, layers) * whole // layers,
    )


def _part(size: int, devices: int) -> int:
    return -(-size // devices)
