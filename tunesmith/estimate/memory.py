"""The most memory a training step takes, by what it is for.  Knows bytes and the order of a step; knows no model and no
device."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace

from tunesmith.estimate.layer import Layer

GIB = 1 << 30

MARGIN = 1.1
"""What has to be free on a GPU, as a share of what is needed: blocks leave gaps between them."""

GAPS = 0.45
"""What gaps between blocks take on a CPU, as a share of what comes and goes in a micro-batch: there blocks of all sizes lie in
one heap.  Measured: 0.35 to 0.55 of LoRA on 30 M, 100 M and 0.5 B, 0 to 0.15 of full tuning, where other terms hide it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at the moment of a step at which they are most."""

    weights: int
    """Of the model as it is held; adapters aside."""
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    """What layers keep for the backward pass."""
    loss: int
    """Logits in the making, and gradients that leave the loss."""
    workspace: int
    """What is computed just then needs beyond what it keeps: a layer, or the optimizer's step."""

    @property
    def total(self) -> int:
        return sum(astuple(self))

    @property
    def to_come(self) -> int:
        """All but the weights, which are there before the first step."""
        return self.total - self.weights - self.adapters

    def recorded(self) -> "Memory":
        """The same where a GPU's work is recorded: records have memory of their own, beside that of a size's first
        micro-batch."""
        return replace(self, workspace=self.workspace + self.activations + self.loss)

    def room(self, kind: str) -> int:
        """Bytes that must be free for what is to come on a device of this kind, with the gaps between blocks."""
        if kind == "cpu":
            return self.to_come + int(GAPS * (self.activations + self.loss))
        return int(self.to_come * MARGIN)

    def __str__(self) -> str:
        """`1.21 GiB: weights 412.0 MiB, gradients 412.0 MiB, ...`, with what is anything at all."""
        return f"{gib(self.total)}: " + ", ".join(f"{name} {gib(size)}" for name, size in asdict(self).items() if size)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step's memory is made of, bytes: the same however many layers are recomputed, but for them."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    layers: Sequence[Layer]
    """From the lowest to the highest, as they are when nothing is recomputed."""
    recomputed: Sequence[Layer]
    """The same when they are; empty when nobody asks."""
    given: int
    """What the lowest layer is given."""
    loss: int
    """The most while the loss is computed, beyond what layers keep."""
    after_loss: int
    """What the loss leaves until the whole backward pass is done: a tied head's gradient."""
    moving: int
    """What the optimizer's step needs beyond its state."""
    embedded: int = 0
    """What the gradient of the embedding takes beside that of its tied head, to which it is added at the end."""

    def peak(self, lowest: int = 0) -> Memory:
        """The most at any time of forward pass, loss and backward pass when the `lowest` layers are recomputed."""
        moments = self._moments([*self.recomputed[:lowest], *self.layers[lowest:]])
        activations, loss, workspace = max(moments, key=sum)
        return Memory(self.weights, self.adapters, self.gradients, self.optimizer, activations, loss, workspace)

    def _moments(self, layers: Sequence[Layer]) -> Iterator[tuple[int, int, int]]:
        """Activations, loss and workspace while each part is computed."""
        below = self.given
        for layer in layers:
            yield below, 0, layer.forward
            yield below + layer.kept, self.after_loss, max(0, layer.backward - layer.kept)
            below += layer.kept
        yield below, self.loss, 0
        yield self.given, self.after_loss + self.embedded, 0
        yield 0, 0, self.moving


def fewest_recomputed(step: Step, free_bytes: int, kind: str) -> int:
    """How many of the lowest layers must be recomputed for what is to come to fit into `free_bytes` of a device of this
    kind, with gaps; where nothing fits, the number that takes least."""
    counts = range(len(step.recomputed) + 1)
    needed = [step.peak(count).room(kind) for count in counts]
    fitting = (count for count in counts if needed[count] <= free_bytes)
    return next(fitting, needed.index(min(needed)))


def gib(size: float) -> str:
    """`1.21 GiB`, or `12.3 MiB` below one."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / (1 << 20):.1f} MiB"
