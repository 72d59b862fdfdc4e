"""The shapes of a model's weights, from its `config.json`.  Knows a few architectures by a table; knows no tensor."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

TABLE = Path(__file__).parent / "architectures.toml"

DISTORTED = ("quantization_config", "num_local_experts", "num_experts", "attention_chunk_size")
"""What a config may hold that makes another architecture of it."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer, as often as there are decoder layers.  `name` as modules are called, such as `self_attn.q_proj`."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def numbers(self) -> int:
        """Of its weight and its bias."""
        return self.inputs * self.outputs + self.outputs * self.bias


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder, in numbers."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    linears: tuple[Linear, ...]
    norms_each: tuple[int, ...]
    """Weights of each norm of a layer."""
    gate: Literal["silu", "gelu"]
    fused: bool
    head_norm: Literal["", "head", "whole"]
    norms: Literal["before", "after", "around"]

    @property
    def layer_numbers(self) -> int:
        """Numbers in a layer's weights."""
        return sum(each.numbers for each in self.linears) + sum(self.norms_each)

    @property
    def embedding_numbers(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def head_numbers(self) -> int:
        """Of a head of its own; 0 where it is the embeddings'."""
        return 0 if self.tied else self.embedding_numbers

    @property
    def numbers(self) -> int:
        """All of the model; a tied weight counts once."""
        return self.layers * self.layer_numbers + self.hidden + self.embedding_numbers + self.head_numbers

    @property
    def tensors(self) -> int:
        """Weights as tensors."""
        return self.layers * self.layer_tensors + 2 + (not self.tied)

    @property
    def layer_tensors(self) -> int:
        return sum(1 + each.bias for each in self.linears) + len(self.norms_each)


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def known() -> list[str]:
    """The architectures whose steps have formulas."""
    return list(_table())


def read(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a `config.json` means; None for an architecture that the formulas do not know."""
    kind = str(config.get("model_type"))
    traits = _table().get(kind)
    if traits is None or any(config.get(name) for name in DISTORTED):
        return None
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    intermediate = int(config["intermediate_size"])
    fused, norms, head_norm = traits.get("fused", False), traits.get("norms", "before"), traits.get("head_norm", "")
    wide, narrow = heads * head_dim, kv_heads * head_dim
    widths = {"head": (head_dim, head_dim), "whole": (wide, narrow), "": ()}[head_norm]
    tied = config.get("tie_word_embeddings")
    return Shape(
        kind,
        int(config["num_hidden_layers"]),
        hidden,
        heads,
        kv_heads,
        head_dim,
        intermediate,
        int(config["vocab_size"]),
        tied=traits.get("tied", False) if tied is None else bool(tied),
        linears=tuple(_linears(config, traits, hidden, intermediate, wide, narrow)),
        norms_each=(hidden,) * (4 if norms == "around" else 2) + widths,
        gate=traits.get("gate", "silu"),
        fused=fused,
        head_norm=head_norm,
        norms=norms,
    )


def _linears(
    config: Mapping[str, Any], traits: Mapping[str, Any], hidden: int, intermediate: int, wide: int, narrow: int
) -> Iterator[Linear]:
    """A layer's linear layers."""
    everywhere = bool(config.get("attention_bias", False))
    inward = everywhere or traits.get("bias") == "qkv"
    within = bool(config.get("mlp_bias", False))
    if traits.get("fused"):
        yield Linear("self_attn.qkv_proj", hidden, wide + 2 * narrow)
        yield Linear("self_attn.o_proj", wide, hidden)
        yield Linear("mlp.gate_up_proj", hidden, 2 * intermediate)
    else:
        for name, outputs in (("q_proj", wide), ("k_proj", narrow), ("v_proj", narrow)):
            yield Linear(f"self_attn.{name}", hidden, outputs, inward)
        yield Linear("self_attn.o_proj", wide, hidden, everywhere)
        for name in ("gate_proj", "up_proj"):
            yield Linear(f"mlp.{name}", hidden, intermediate, within)
    yield Linear("mlp.down_proj", intermediate, hidden, within)


def adapted(shape: Shape, written: Sequence[str]) -> list[Linear] | None:
    """The linear layers that `lora_target` names, in every layer; None when it names anything else."""
    groups = {
        "all": list(shape.linears),
        "attention": [each for each in shape.linears if each.name.startswith("self_attn.")],
        "feedforward": [each for each in shape.linears if not each.name.startswith("self_attn.")],
    }
    if len(written) == 1 and not re.fullmatch(r"[\w.-]+", written[0]):
        whole = re.compile(written[0])
        found = [each for each in shape.linears if whole.fullmatch(f"model.layers.0.{each.name}")]
        everywhere = [each for each in found if whole.fullmatch(f"model.layers.{shape.layers - 1}.{each.name}")]
        return found if found and len(everywhere) == len(found) else None
    named: dict[str, Linear] = {}
    for entry in written:
        some = groups.get(entry) or [each for each in shape.linears if entry in (each.name, each.name.split(".")[1])]
        if not some:
            return None
        named |= {each.name: each for each in some}
    return [each for each in shape.linears if each.name in named]


def packed_bytes(numbers: int, bits: int) -> int:
    """Bytes that so many numbers take in `bits` bits each, with a scale of 8 bits for each 64, and one of 32 bits for 256 of
    those (QLoRA, arXiv:2305.14314)."""
    return numbers * bits // 8 + -(-numbers // 64) + 4 * -(-numbers // (64 * 256))
