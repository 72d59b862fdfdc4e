"""The memory of a step by closed formulas, from a model's shapes and how it is trained.  Knows what the trainer's layers keep;
knows no tensor.

Bytes per token, as the trainer computes: rows behind one another, norms that keep their input and a root, gates that keep
what came in, LoRA that keeps its input and the narrow product, the loss from hidden states.  `trace` of the trainer counts
the same things in the real model; a test holds the two together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.estimate.layer import Layer
from tunesmith.estimate.memory import Step
from tunesmith.estimate.optimizers import kept_bytes, moving_bytes
from tunesmith.estimate.shapes import Linear, Shape, packed_bytes
from tunesmith.losses.pieces import most_bytes

FLOAT = 4

SHORT = 512
"""Tokens of a row up to which a CPU keeps its attention's shares whole."""


@dataclass(frozen=True, slots=True)
class Formats:
    """Bytes of a number: as computed, in frozen weights, in trained ones."""

    compute: int
    frozen: int
    trained: int
    short: bool = False
    """Linear layers make copies in 8 bits of what they multiply."""


FORMATS = {
    "fp32": Formats(4, 4, 4),
    "bf16": Formats(2, 2, 4),
    "fp16": Formats(2, 2, 4),
    "pure_bf16": Formats(2, 2, 2),
    "fp8": Formats(2, 2, 4, short=True),
}


@dataclass(frozen=True, slots=True)
class Method:
    """What is trained.  `kind`: full, freeze or lora."""

    kind: Literal["full", "freeze", "lora"]
    rank: int = 0
    adapted: tuple[Linear, ...] = ()
    trained_layers: int = 0
    """Of `freeze`: the last ones; negative: the first ones."""
    bits: int | None = None
    """What frozen linear layers are held in."""


@dataclass(frozen=True, slots=True)
class Load:
    """A micro-batch.  `lengths`: tokens of its rows; `places`: how many of them are trained; `shared`: tokens that all rows
    begin with and that are computed once, as nothing behind their last trained token is then."""

    lengths: tuple[int, ...]
    places: int
    shared: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(self.computed)

    @property
    def computed(self) -> tuple[int, ...]:
        """Tokens of each piece that is: the start, and what is each row's own."""
        if not self.shared:
            return self.lengths
        return (self.shared, *(max(length - self.shared - 1, 1) for length in self.lengths))


@dataclass(frozen=True, slots=True)
class Loss:
    """What the loss needs.  `anchored`: it compares with what the model said before it was tuned, which a second model says
    where no adapter can be switched off."""

    anchored: bool = False


PLAIN = Loss()


@dataclass(frozen=True, slots=True)
class Way:
    """How it is computed.  `kind`: of device; `recomputed`: layers that are computed again going back keep their input, in
    the CPU's memory where that is `offload`."""

    formats: Formats
    kind: Literal["cpu", "cuda"]
    recomputed: Literal["", "everything", "offload"] = ""
    ranks: int = 1


def step(shape: Shape, method: Method, load: Load, way: Way, optimizer: str, asked: Loss = PLAIN) -> Step:
    """What a step is made of.  Layers are listed as they are and, so that their number can be chosen, recomputed."""
    formats = way.formats
    numbers, tensors = trained(shape, method)
    wide = formats.trained if method.kind == "full" else formats.frozen  # of what runs through the layers
    layers = [_layer(shape, method, load, way, number, wide) for number in range(shape.layers)]
    recomputed = [_recomputed(each, shape.hidden * load.tokens * wide, way) for each in layers]
    given = shape.hidden * load.tokens * wide
    held = formats.trained if method.kind == "full" else formats.frozen
    loss, after_loss = _loss(shape, method, load, way, wide, held, asked)
    second = shape.numbers * held if asked.anchored and method.kind != "lora" else 0
    gradients = numbers * formats.trained
    return Step(
        weights=weights_bytes(shape, method, formats) + second,
        adapters=gradients if method.kind == "lora" else 0,
        gradients=gradients * (2 if way.ranks > 1 else 1),
        optimizer=kept_bytes(optimizer, numbers, tensors, formats.trained),
        layers=layers if not way.recomputed else recomputed,
        recomputed=recomputed,
        given=given if way.recomputed or method.kind == "full" else 0,
        loss=loss,
        after_loss=after_loss,
        moving=moving_bytes(optimizer, numbers, formats.trained, way.kind),
        embedded=0 if way.kind == "cpu" and way.ranks == 1 else after_loss,  # only rows that were read are added there
    )


def trained(shape: Shape, method: Method) -> tuple[int, int]:
    """Numbers that are trained, and in how many tensors."""
    if method.kind == "lora":
        each = sum(method.rank * (linear.inputs + linear.outputs) for linear in method.adapted)
        return shape.layers * each, shape.layers * 2 * len(method.adapted)
    if method.kind == "freeze":
        count = abs(method.trained_layers)
        return count * shape.layer_numbers, count * shape.layer_tensors
    return shape.numbers, shape.tensors


def weights_bytes(shape: Shape, method: Method, formats: Formats) -> int:
    """The model as it is held, adapters aside."""
    if method.kind == "full":
        return shape.numbers * formats.trained
    if method.kind == "freeze":
        numbers, _ = trained(shape, method)
        return numbers * formats.trained + (shape.numbers - numbers) * formats.frozen
    if method.bits:
        short = sum(linear.inputs * linear.outputs for linear in shape.linears)
        packed = sum(packed_bytes(linear.inputs * linear.outputs, method.bits) for linear in shape.linears)
        return shape.layers * packed + (shape.numbers - shape.layers * short) * formats.frozen
    return shape.numbers * formats.frozen


def _is_trained(shape: Shape, method: Method, number: int) -> bool:
    count = method.trained_layers
    return method.kind == "full" or (
        method.kind == "freeze" and (number < -count if count < 0 else number >= shape.layers - count)
    )


def _layer(shape: Shape, method: Method, load: Load, way: Way, number: int, wide: int) -> Layer:
    """What layer `number` takes.  `wide`: bytes of a number that runs through the layers."""
    lowest = 0
    if method.kind == "freeze":
        lowest = 0 if method.trained_layers < 0 else shape.layers - method.trained_layers
    parts = _Parts(shape, method, load, way, wide, is_trained=_is_trained(shape, method, number))
    kept = parts.kept()
    forward = kept + parts.forward()
    if number < lowest:
        return Layer(kept=0, forward=forward, backward=0)
    return Layer(kept=kept, forward=forward, backward=kept + parts.scaling() + max(parts.backward()))


def _recomputed(layer: Layer, result: int, way: Way) -> Layer:
    """The same layer when it is made again from its input, which is what the one below gave."""
    kept = 0 if way.recomputed == "offload" or not layer.kept else result
    return Layer(kept=kept, forward=layer.forward, backward=layer.backward)


@dataclass(frozen=True, slots=True)
class _Parts:
    """One layer, part by part."""

    shape: Shape
    method: Method
    load: Load
    way: Way
    wide: int
    is_trained: bool

    @property
    def _computed(self) -> int:
        return self.way.formats.compute

    @property
    def _held(self) -> int:
        return self.way.formats.trained if self.is_trained else self.way.formats.frozen

    @property
    def _copies(self) -> int:
        """Bytes of a number in the copies of weights that are kept because they are computed in another format."""
        return self._computed if self.is_trained and self._held != self._computed else 0

    def _keeping(self, *names: str) -> int:
        """How many of these linear layers keep what they are given: those that are trained, or have an adapter."""
        wanted = self.shape.linears if self.is_trained else self.method.adapted
        return sum(each.name.split(".")[1] in names for each in wanted)

    def kept(self) -> int:
        """From the forward pass to the backward pass."""
        shape, each, tokens = self.shape, self._computed, self.load.tokens
        wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        before = "before" if shape.norms == "before" else shape.norms
        values = wide + 2 * narrow if shape.fused else narrow
        per_token = each * (wide + narrow + values + wide)  # queries, keys, values, and what attention gives
        per_token += FLOAT * shape.heads
        if shape.head_norm:
            per_token += each * (wide + narrow)
            per_token += FLOAT * (shape.heads + shape.kv_heads if shape.head_norm == "head" else 2)
        if before != "after":
            per_token += shape.hidden * self.wide + 2 * FLOAT  # what the second norm is given; roots
        if before != "before":
            per_token += 2 * (shape.hidden * each + FLOAT)
        per_token += self._inputs("q_proj", "k_proj", "v_proj", "qkv_proj", first=True)
        per_token += self._inputs("gate_proj", "up_proj", "gate_up_proj", first=False)
        per_token += each * shape.intermediate * (2 + self._keeping("down_proj"))
        if shape.gate == "gelu" or shape.fused:
            per_token += each * shape.intermediate
        if shape.norms != "after" or self.wide == each:  # where the next layer casts it, only its copies are kept
            per_token += shape.hidden * self.wide  # its result
        if self.method.kind == "lora":
            per_token += each * self.method.rank * len(self.method.adapted)
        copies = sum(linear.numbers for linear in shape.linears) * self._copies
        return per_token * tokens + copies + self._shares()

    def _inputs(self, *names: str, first: bool) -> int:
        """Bytes per token that linear layers keep of what they share: one copy each where it is cast for them."""
        users, width, each = self._keeping(*names), self.shape.hidden, self._computed
        normed = self.shape.norms != "after"
        shown = max(self.wide, self._held) if normed else self.wide
        if shown != each:
            return users * width * each
        if not normed:
            return 0 if first else width * each  # the first is what the layer below gave
        return width * each if users else 0

    def _shares(self) -> int:
        """What attention keeps that grows with the square of rows, and where it gives its result a second time."""
        shape, each = self.shape, self._computed
        if self.way.kind == "cuda" and each != FLOAT:
            return 0
        wide = shape.heads * shape.head_dim
        if self.way.kind == "cuda":
            return self.load.tokens * wide * each
        short = [length for length in self.load.lengths if length <= SHORT]
        long = sum(self.load.lengths) - sum(short)
        return each * (shape.heads * sum(length * length for length in short) + long * wide) - FLOAT * shape.heads * (
            sum(short)
        )

    def forward(self) -> int:
        """The most on the way forward beyond what is kept."""
        shape, tokens = self.shape, self.load.tokens
        ends = shape.hidden * tokens * self._computed
        if shape.norms != "before" and self._computed != FLOAT:
            ends = shape.hidden * tokens * 2 * FLOAT
        return self.scaling() + max(ends, ends + self._made_long() - shape.hidden * tokens * self.wide)

    def _made_long(self) -> int:
        """A weight made of its short form."""
        if not self.method.bits:
            return 0
        return self._computed * self.shape.intermediate * self.shape.hidden

    def scaling(self) -> int:
        """What the widest product is made of in 8 bits, and in fp32 before."""
        return self.load.tokens * self.shape.intermediate * (2 * FLOAT + 1) if self.way.formats.short else 0

    def backward(self) -> Iterator[int]:
        """Beyond what was kept, at the moments that may take most: the highest norm, the gate, the widest product."""
        shape, each, tokens, width = self.shape, self._computed, self.load.tokens, self.shape.hidden
        above = width * tokens * (self.wide + (each if self.wide != each else 0))
        inner = shape.intermediate * tokens * each
        down = shape.intermediate * width
        keeps = self._keeping("down_proj")
        gone = keeps * (inner + down * self._copies)
        if shape.norms != "before":
            yield width * tokens * (self.wide + 3 * FLOAT)
            gone += width * tokens * each
        yield above + 3 * inner - gone
        yield above + inner + self._made_long()
        if self.is_trained:
            yield above + inner + down * each
            yield above + inner + down * (each + self._held) - gone if self._copies else 0
        if squares := self._squares():
            after = (
                keeps * inner + 2 * inner + self._inputs("gate_proj", "up_proj", "gate_up_proj", first=False) * tokens
            )
            yield above + 2 * shape.heads * shape.head_dim * tokens * each + 3 * squares - after

    def _squares(self) -> int:
        """The longest row's shares on a CPU."""
        short = [length for length in self.load.lengths if length <= SHORT]
        if self.way.kind == "cuda" or not short:
            return 0
        return self._computed * self.shape.heads * max(short) ** 2


def _loss(shape: Shape, method: Method, load: Load, way: Way, wide: int, held: int, asked: Loss) -> tuple[int, int]:
    """Bytes the loss takes at the most, and what of it stays until the backward pass is done: a tied head's gradient."""
    each, full = way.formats.compute, method.kind == "full"
    around = shape.hidden * (load.tokens * wide + load.places * (wide + (each if wide != each else 0)))
    taken = most_bytes(
        load.places,
        shape.vocabulary,
        shape.hidden,
        kind=way.kind,
        itemsize=each,
        held=held,
        trained=full,
        anchored=asked.anchored,
    )
    return around + taken, shape.embedding_numbers * held if full and shape.tied else 0


def largest_load(lengths: Sequence[int], places: int) -> Load:
    """A micro-batch of rows of these lengths."""
    return Load(tuple(lengths), places)
