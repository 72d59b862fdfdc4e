"""What a GPU is measured with: shapes of public models, real rows, and how much arithmetic a token is.  Knows no way to
train."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config

from tunesmith.data.batching.pack import fill
from tunesmith.data.sample import Sample

RATES = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}
"""Dense bf16 operations a second, by a part of the device's name, from the makers' data sheets."""

TYPICAL_TOKENS = 250
"""Tokens of a sample, within which attention is counted."""


@dataclass(frozen=True)
class Shape:
    """A public model's shape."""

    kind: type[PreTrainedConfig]
    width: int
    between: int
    layers: int
    heads: int
    groups: int
    vocabulary: int
    tied: bool

    def config(self) -> PreTrainedConfig:
        return self.kind(
            hidden_size=self.width,
            intermediate_size=self.between,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            vocab_size=self.vocabulary,
            tie_word_embeddings=self.tied,
            max_position_embeddings=8192,
            use_cache=False,
        )


SHAPES = {
    "Qwen2.5-0.5B": Shape(Qwen2Config, 896, 4864, 24, 14, 2, 151_936, True),
    "Qwen2.5-1.5B": Shape(Qwen2Config, 1536, 8960, 28, 12, 2, 151_936, True),
    "Llama-3.2-1B": Shape(LlamaConfig, 2048, 8192, 16, 32, 8, 128_256, True),
    "Qwen2.5-7B": Shape(Qwen2Config, 3584, 18_944, 28, 28, 4, 152_064, False),
    "Llama-3.1-8B": Shape(LlamaConfig, 4096, 14_336, 32, 32, 8, 128_256, False),
}


@dataclass(frozen=True)
class Work:
    """A model, how it is tuned, and how many rows a step has."""

    model: str
    full: bool = False
    checkpointing: bool = False
    rows: int = 2
    bits: int | None = None
    """What frozen linear layers are held in."""

    def name(self, row_tokens: int) -> str:
        tuned = "full" if self.full else "QLoRA r 16" if self.bits else "LoRA r 16"
        again = ", checkpointing" if self.checkpointing else ""
        return f"{self.model}, {tuned}, {self.rows} x {row_tokens}{again}"


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    device: torch.device
    row_tokens: int
    shapes: dict[str, Shape]
    rows: list[list[Sample]]
    """Rows of up to `row_tokens` tokens, each a list of samples of real lengths."""

    def share(self, work: Work, tokens_per_second: float) -> str:
        """The rate as a share of the device's bf16 rate; empty for a device whose rate is not known."""
        rate = next((rate for name, rate in RATES.items() if name in called(self.device)), None)
        return "" if rate is None else f"{tokens_per_second * operations(work, self.shapes[work.model]) / rate:.1%}"


def bench(data: Path, *, tiny: bool) -> Bench:
    """The measurements' ground: on the GPU if there is one; `tiny`: shapes that a CPU can compute."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes, row_tokens = SHAPES, 4096
    if tiny:
        small = {"width": 64, "between": 128, "layers": 2, "heads": 4, "groups": 2, "vocabulary": 512}
        shapes, row_tokens = {name: replace(shape, **small) for name, shape in SHAPES.items()}, 64
    words = min(shape.vocabulary for shape in shapes.values())
    return Bench(device, row_tokens, shapes, packed_rows(data, words, row_tokens))


def packed_rows(data: Path, words: int, row_tokens: int) -> list[list[Sample]]:
    """Samples as long as the file's rows, or about so where there is none.  The words of a random model mean nothing, so
    the tokens are random; a third of each sample is not trained."""
    random = np.random.default_rng(0)
    if data.is_file():
        texts = ["".join(map(str, row.values())) for row in json.loads(data.read_text(encoding="utf-8"))]
        lengths = np.array([min(max(len(text) // 4, 8), row_tokens) for text in texts])
    else:
        lengths = np.minimum(random.geometric(1 / TYPICAL_TOKENS, 2000) + 8, row_tokens)
    samples = []
    for tokens in lengths.tolist():
        ids = random.integers(3, words, tokens).astype(np.int32)
        labels = ids.copy()
        labels[: tokens // 3] = -100
        samples.append(Sample(ids, labels))
    return [[samples[number] for number in row] for row in fill(lengths, row_tokens, seed=0)]


def operations(work: Work, shape: Shape) -> float:
    """Operations of a token: 4 for each weight with LoRA, 6 with full tuning, without those of recomputation; and the
    products of attention within samples."""
    width = shape.width * (2 + 2 * shape.groups / shape.heads) + 3 * shape.between
    weights = shape.layers * shape.width * width + shape.vocabulary * shape.width
    attention = shape.layers * 2 * shape.width * TYPICAL_TOKENS / 2
    return (6 if work.full else 4) * (weights + attention)


def called(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
