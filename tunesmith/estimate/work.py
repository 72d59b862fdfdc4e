"""How many operations a run is, and how long a device works on them.  Knows numbers; knows no tensor.

A product of n x m weights takes 2 n m operations a token forward, as many for the gradient of what it was given, and as many
again for its weight's: 6 N a token where all is trained, 4 N where weights are frozen (arXiv:2001.08361, section 2.1).
"""

from dataclasses import dataclass

from tunesmith.estimate.formula import Method, trained
from tunesmith.estimate.shapes import Shape


@dataclass(frozen=True, slots=True)
class Rows:
    """What a device trains or reads: `tokens`, of them `places` that are learned, and the sum of the squares of rows'
    lengths."""

    tokens: float
    places: float
    squares: float

    def times(self, factor: float) -> "Rows":
        """So many passes, or one device's share."""
        return Rows(self.tokens * factor, self.places * factor, self.squares * factor)


@dataclass(frozen=True, slots=True)
class Range:
    """`low` to `high`; `likely` lies between."""

    low: float
    likely: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> "Range":
        return Range(self.low * factor, self.likely * factor, self.high * factor)


def forward(shape: Shape, rows: Rows, *, layers: int | None = None) -> float:
    """Operations of a forward pass through so many layers, the head where a token is learned, attention causal."""
    count = shape.layers if layers is None else layers
    linear = 2 * sum(each.inputs * each.outputs for each in shape.linears) * rows.tokens
    attention = 2 * shape.heads * shape.head_dim * rows.squares  # queries by keys, shares by values, half of each
    return count * (linear + attention)


def head(shape: Shape, rows: Rows) -> float:
    """Operations of one product with the head."""
    return 2 * shape.embedding_numbers * rows.places


def training(shape: Shape, method: Method, rows: Rows, *, recomputed: bool) -> float:
    """Operations to train on the rows."""
    reached = shape.layers
    if method.kind == "freeze" and method.trained_layers >= 0:
        reached = method.trained_layers
    once, back = forward(shape, rows), forward(shape, rows, layers=reached)
    back += forward(
        shape, Rows(0, 0, rows.squares), layers=reached
    )  # attention's two products have four on the way back
    again = forward(shape, rows, layers=reached) if recomputed else 0.0
    own, _ = trained(shape, method)
    weights = 2.0 * rows.tokens * own  # gradients of what is trained
    if method.kind == "lora":
        weights *= 3  # adapters are passed forward and backward too
    if method.kind == "full":
        weights -= 2.0 * rows.tokens * (shape.embedding_numbers + shape.head_numbers)
    heads = (3 if method.kind == "full" else 2) * head(shape, rows)
    return once + back + again + weights + heads


def seconds(operations: float, rate: float, shares: Range) -> Range:
    """How long they take at shares of a rate: the highest share is the shortest time."""
    return Range(
        operations / (rate * shares.high), operations / (rate * shares.likely), operations / (rate * shares.low)
    )


def cache_bytes(shape: Shape, rows: int, tokens: int, itemsize: int) -> int:
    """Keys and values of rows that are answered, each of at most so many tokens."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * rows * tokens * itemsize
