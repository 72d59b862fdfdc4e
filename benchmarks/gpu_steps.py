"""Training steps on a GPU, by tunesmith and by transformers with peft as they are.  Knows both; knows no table."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_work import Bench, Work, wait
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tunesmith import compiled
from tunesmith.config.model import ModelConfig
from tunesmith.config.train import TrainConfig
from tunesmith.data.batching.collate import join, pad
from tunesmith.data.batching.fixed import fixed
from tunesmith.data.sample import EVERYTHING, Batch, Sample
from tunesmith.losses.liger import liger_cross_entropy
from tunesmith.losses.linear import linear_cross_entropy
from tunesmith.models import float8, liger
from tunesmith.models.elementwise import lighten
from tunesmith.models.predict import predictor
from tunesmith.models.tuning.fused import fuse
from tunesmith.train.objectives import NextToken
from tunesmith.train.passes import Graphs, Plain, Recorded
from tunesmith.train.runtime import Runtime

WARM, COUNTED = 3, 8
"""Steps that are not counted, and that are."""

Learn = Callable[[list[list[Sample]]], Tensor]
"""Rows -> their mean loss, whose gradients it has added."""

Make = Callable[[Any, torch.device], tuple[nn.Module, Learn]]


@dataclass(frozen=True)
class Outcome:
    rate: float
    """Tokens a second."""
    gibibytes: float
    losses: list[float]
    """Of the first steps."""


@dataclass(frozen=True)
class Ours:
    """Rows behind one another, the loss from hidden states, LoRA in one step, lighter layers, Liger's where installed: but for
    what is left out."""

    left_out: tuple[str, ...] = ()
    compile: bool = False
    liger_loss: bool = False
    fp8: bool = False
    graphs: bool = False

    def __call__(self, model: Any, device: torch.device) -> tuple[nn.Module, Learn]:
        if isinstance(model, PeftModel) and "fused_adapters" not in self.left_out:
            fuse(model)
        if "lighter_layers" not in self.left_out:
            lighten(model)
        if "liger" not in self.left_out and liger.wanted("auto", device):
            liger.take(model)
        compiled.switch_off()
        if self.compile and not compiled.switch_on(device):
            raise RuntimeError("nothing can be compiled here")
        asked = predictor(
            model,
            no_padding="no_padding" not in self.left_out,
            share="shared_prefix" not in self.left_out,
            fused_loss="fused_loss" not in self.left_out,
            loss=liger_cross_entropy if self.liger_loss else linear_cross_entropy,
        )

        if self.fp8 and not float8.take(model):
            raise RuntimeError("no layer computes in fp8")

        runtime = Runtime(TrainConfig(), ModelConfig(device=device.type, compute_type="bf16"))
        plain = Plain(asked, NextToken(), runtime)
        if self.graphs and (device.type != "cuda" or not asked.ragged):
            raise RuntimeError("nothing can be recorded here")
        passes = Recorded(plain, Graphs(device), device) if self.graphs else plain

        def learn(rows: list[list[Sample]]) -> Tensor:
            samples = [sample for row in rows for sample in row]
            numbers = range(len(samples))
            if not asked.ragged:
                batch = pad(samples, numbers, pad_id=0)
            elif self.graphs:
                batch = fixed(join(samples, numbers))
            else:
                batch = join(samples, numbers, share=EVERYTHING if asked.shares else 0)
            return passes(batch, 1 / batch.loss_tokens) / batch.loss_tokens

        return asked, learn


def theirs(model: Any, device: torch.device) -> tuple[nn.Module, Learn]:
    """transformers and peft as they are, on the same rows: samples behind one another, told apart by their positions."""

    def learn(rows: list[list[Sample]]) -> Tensor:
        batch: Batch = pad([_row(row) for row in rows], range(len(rows)), pad_id=0)
        labels = torch.full_like(batch.input_ids, -100)
        labels.view(-1)[batch.places + 1] = batch.targets
        with torch.autocast(device.type, torch.bfloat16):
            loss: Tensor = model(
                input_ids=batch.input_ids.to(device),
                position_ids=batch.position_ids.to(device),
                attention_mask=None,
                labels=labels.to(device),
            ).loss
        loss.backward()
        return loss.detach()

    return model, learn


def run(bench: Bench, work: Work, make: Make) -> Outcome:
    """Train a few steps from the same start, weights in bf16 and adapters in fp32."""
    policy, learn = make(_model(bench, work), bench.device)
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses, tokens, began = list[Tensor](), 0, 0.0
    keeps = isinstance(make, Ours) and make.graphs  # gradients stay where they were recorded
    for step in range(WARM + COUNTED):
        chosen = [bench.rows[(step * work.rows + place) % len(bench.rows)] for place in range(work.rows)]
        if step == WARM:
            wait(bench.device)
            began = time.perf_counter()
        losses.append(learn(chosen))
        optimizer.step()
        optimizer.zero_grad(set_to_none=not keeps)
        tokens += sum(len(sample.input_ids) for row in chosen for sample in row) if step >= WARM else 0
    wait(bench.device)
    rate = tokens / (time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else 0.0
    return Outcome(rate, peak, [float(loss) for loss in losses[:4]])


def _model(bench: Bench, work: Work) -> Any:
    """The shape with random weights, the same for every way."""
    torch.manual_seed(0)
    torch.set_default_device(bench.device)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model: Any = AutoModelForCausalLM.from_config(bench.shapes[work.model].config())
    finally:
        torch.set_default_device("cpu")
        torch.set_default_dtype(torch.float32)
    model.train()
    if work.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if work.full:
        return model
    model.requires_grad_(False)
    if work.bits is not None:
        _in_four_bits(model)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def _in_four_bits(model: Any) -> None:
    """Hold the linear layers, but for the head, as QLoRA does, by bitsandbytes."""
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module is not model.get_output_embeddings():
            sizes, weight = (module.in_features, module.out_features, module.bias is not None), module.weight
            held = bnb.nn.Linear4bit(*sizes, compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=True)
            held.weight = bnb.nn.Params4bit(
                weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            held.bias = module.bias
            above, _, own = name.rpartition(".")
            setattr(model.get_submodule(above), own, held.to(weight.device))
    model.is_loaded_in_4bit = True


def _row(samples: list[Sample]) -> Sample:
    labels = np.concatenate([sample.labels for sample in samples])
    labels[np.cumsum([0, *(len(sample.labels) for sample in samples[:-1])])] = -100
    parts = tuple(len(sample.labels) for sample in samples)
    return Sample(np.concatenate([sample.input_ids for sample in samples]), labels, parts)
