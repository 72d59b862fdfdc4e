"""Steps on a GPU: tunesmith's way to ask a model beside transformers and peft as they are, on the same packed rows.

    python benchmarks/gpu.py [--models NAME ...] [--seconds 560] [--data FILE] [--output FILE] [--tiny]

Models have the shapes of public ones and random weights, made on the device.  Rows are real ones where the file is there,
packed to 4,096 tokens.  Prints, as a table in Markdown: tokens a second, the share of the device's bf16 rate (LoRA counted
as 4 x weights per token, full tuning as 6 x, attention added), peak memory, and the losses of the first steps of both.
`--tiny` tries everything on small shapes, on any device.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config

from tunesmith.data.collate import join, pad
from tunesmith.data.pack import fill
from tunesmith.data.sample import Batch, Sample
from tunesmith.models.predict import predictor
from tunesmith.models.tuning.fused import fuse

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data" / "demo" / "alpaca_en_demo.json"
ROW_TOKENS = 4096
WARM, COUNTED = 3, 8
"""Steps that are not counted, and that are."""

RATES = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}
"""Dense bf16 products a second, by a part of the device's name, from the makers' data sheets."""


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
            max_position_embeddings=2 * ROW_TOKENS,
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
    """What is measured: rows at once, and how the model is tuned."""

    model: str
    full: bool = False
    checkpointing: bool = False
    rows: int = 2

    @property
    def name(self) -> str:
        tuned = "full" if self.full else "LoRA r 16"
        return f"{self.model}, {tuned}, {self.rows} x {ROW_TOKENS}{', checkpointing' if self.checkpointing else ''}"


@dataclass(frozen=True)
class Outcome:
    rate: float
    gibibytes: float
    losses: list[float]


def main() -> int:
    arguments = _arguments()
    global ROW_TOKENS
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes = SHAPES
    if arguments.tiny:
        ROW_TOKENS = 64
        shapes = {
            name: replace(shape, width=64, between=128, layers=2, heads=4, groups=2, vocabulary=512)
            for name, shape in SHAPES.items()
        }
    rows = packed_rows(arguments.data, min(shape.vocabulary for shape in shapes.values()))
    end = time.monotonic() + arguments.seconds
    lines = [f"{_called(device)}, torch {torch.__version__}", "", *HEAD]
    print("\n".join(lines), flush=True)
    for work in works(arguments.models):
        for way, make in WAYS.items():
            if time.monotonic() > end:
                break
            lines.append(
                tell(
                    work,
                    way,
                    shapes[work.model],
                    device,
                    lambda make=make, work=work: run(work, make, shapes[work.model], rows, device),
                )
            )
            print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def works(models: list[str]) -> Iterator[Work]:
    """LoRA on every model, with checkpointing on the largest; full tuning of the small ones."""
    for model in models:
        yield Work(model)
        if model in ("Llama-3.1-8B", "Qwen2.5-7B"):
            yield Work(model, checkpointing=True)
        else:
            yield Work(model, full=True)


def packed_rows(data: Path, words: int) -> list[list[Sample]]:
    """Rows of up to ROW_TOKENS tokens, each a list of samples of real lengths.  The words of a random model mean nothing,
    so bytes stand for tokens."""
    random = np.random.default_rng(0)
    if data.is_file():
        texts = ["".join(map(str, row.values())) for row in json.loads(data.read_text(encoding="utf-8"))]
        lengths = np.array([min(max(len(text) // 4, 8), ROW_TOKENS) for text in texts])
    else:
        lengths = np.minimum(random.geometric(1 / 200, 2000) + 8, ROW_TOKENS)
    samples = []
    for tokens in lengths.tolist():
        ids = random.integers(3, words, tokens).astype(np.int32)
        labels = ids.copy()
        labels[: tokens // 3] = -100
        samples.append(Sample(ids, labels))
    return [[samples[number] for number in row] for row in fill(lengths, ROW_TOKENS, seed=0)]


Make = Callable[[Any], tuple[nn.Module, Callable[[list[list[Sample]], torch.device], Tensor]]]


def ours(model: Any) -> tuple[nn.Module, Callable[[list[list[Sample]], torch.device], Tensor]]:
    """Rows behind one another, the loss from hidden states, LoRA in one step."""
    if "peft" in type(model).__module__:
        fuse(model)
    asked = predictor(model)

    def cost(rows: list[list[Sample]], device: torch.device) -> Tensor:
        samples = [sample for row in rows for sample in row]
        batch = join(samples, range(len(samples))) if asked.ragged else pad(samples, range(len(samples)), pad_id=0)
        said = asked(
            input_ids=batch.input_ids.to(device),
            position_ids=batch.position_ids.to(device),
            attention_mask=None if batch.packed else batch.attention_mask.to(device),
            places=batch.places.to(device),
            bounds=None if batch.bounds is None else batch.bounds.to(device),
            longest=batch.longest,
        )
        return said.cross_entropy(batch.targets.to(device)) / batch.loss_tokens

    return asked, cost


def theirs(model: Any) -> tuple[nn.Module, Callable[[list[list[Sample]], torch.device], Tensor]]:
    """transformers and peft as they are, on the same rows: samples behind one another, told apart by their positions."""

    def cost(rows: list[list[Sample]], device: torch.device) -> Tensor:
        batch: Batch = pad([_row(row) for row in rows], range(len(rows)), pad_id=0)
        return model(
            input_ids=batch.input_ids.to(device),
            position_ids=batch.position_ids.to(device),
            attention_mask=None,
            labels=batch.labels.to(device),
        ).loss

    return model, cost


WAYS: dict[str, Make] = {"tunesmith": ours, "transformers + peft": theirs}
HEAD = (
    "| work | way | tokens/s | of the bf16 rate | peak GiB | losses of the first steps |",
    "|---|---|---|---|---|---|",
)


def run(work: Work, make: Make, shape: Shape, rows: list[list[Sample]], device: torch.device) -> Outcome:
    """Train a few steps from the same start."""
    torch.manual_seed(0)
    torch.set_default_device(device)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model: Any = AutoModelForCausalLM.from_config(shape.config())
    finally:
        torch.set_default_device("cpu")
        torch.set_default_dtype(torch.float32)
    model.train()
    if work.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if not work.full:
        model.requires_grad_(False)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    policy, cost = make(model)
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses, tokens, began = list[Tensor](), 0, 0.0
    for step in range(WARM + COUNTED):
        chosen = [rows[(step * work.rows + place) % len(rows)] for place in range(work.rows)]
        if step == WARM:
            _wait(device)
            began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            loss = cost(chosen, device)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        tokens += sum(len(sample.input_ids) for row in chosen for sample in row) if step >= WARM else 0
    _wait(device)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return Outcome(tokens / (time.perf_counter() - began), peak, [float(loss) for loss in losses[:4]])


def tell(work: Work, way: str, shape: Shape, device: torch.device, measure: Callable[[], Outcome]) -> str:
    """One line of the table; a run that does not fit says so."""
    try:
        outcome = measure()
    except torch.OutOfMemoryError:
        return f"| {work.name} | {way} | does not fit | | | |"
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    rate = next((rate for name, rate in RATES.items() if name in _called(device)), None)
    share = "" if rate is None else f"{outcome.rate * operations(work, shape) / rate:.1%}"
    losses = " ".join(f"{loss:.4f}" for loss in outcome.losses)
    return f"| {work.name} | {way} | {outcome.rate:,.0f} | {share} | {outcome.gibibytes:.1f} | {losses} |"


def operations(work: Work, shape: Shape) -> float:
    """Operations of a token: 4 for each weight with LoRA, 6 with full tuning, without those of recomputation; and the
    products of attention within samples of about 250 tokens."""
    width = shape.width * (2 + 2 * shape.groups / shape.heads) + 3 * shape.between
    weights = shape.layers * shape.width * width + shape.vocabulary * shape.width
    attention = shape.layers * 2 * shape.width * 250 / 2
    return (6 if work.full else 4) * (weights + attention)


def _row(samples: list[Sample]) -> Sample:
    labels = np.concatenate([sample.labels for sample in samples])
    labels[np.cumsum([0, *(len(sample.labels) for sample in samples[:-1])])] = -100
    parts = tuple(len(sample.labels) for sample in samples)
    return Sample(np.concatenate([sample.input_ids for sample in samples]), labels, parts)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--seconds", type=int, default=560, help="no work is begun after these")
    parser.add_argument("--data", type=Path, default=DATA, help="alpaca rows, for their lengths")
    parser.add_argument("--output", type=Path, help="a file for the table")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on any device")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
