"""What a decoder layer takes of memory.  Knows bytes; knows no tensor."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layer:
    """Bytes, beyond what was there before the layer, its input included."""

    kept: int
    """After the forward pass until the backward pass has gone through; its result included."""
    forward: int
    """The most at any time on the way forward."""
    backward: int
    """The most on the way back, what was kept and the gradient of its result included."""
