"""What a run's steps will take of the device's memory, and how many layers are recomputed for them to fit.  Knows the
measure and the model; the estimate's room knows the arithmetic."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from tunesmith.data.batching.batches import batch_of
from tunesmith.data.batching.collate import join, pad
from tunesmith.data.batching.division import FILLER, Division
from tunesmith.data.batching.largest import largest
from tunesmith.data.batching.starts import shared_by_all
from tunesmith.data.pipeline import Prepared
from tunesmith.data.sample import Batch, Layout, Sample
from tunesmith.estimate.activations import measure
from tunesmith.estimate.free import free_bytes
from tunesmith.estimate.layer import Layer
from tunesmith.estimate.memory import Memory, Step, fewest_recomputed, gib
from tunesmith.estimate.state import state
from tunesmith.log import ModelError, note, say
from tunesmith.losses.linear import most_bytes
from tunesmith.models import recompute, structure
from tunesmith.models.predict import Predictor
from tunesmith.train.objectives import Objective
from tunesmith.train.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a loss other than plain cross-entropy needs: `anchored`, what the model said before it was tuned; `weights`,
    bytes of a second model that says it, 0 where the first does."""

    anchored: bool
    weights: int = 0


def settle(
    written: bool | str,
    policy: Predictor,
    objective: Objective,
    batch: Batch,
    optimizer: Optimizer,
    runtime: Runtime,
    chosen: Chosen | None = None,
) -> Memory:
    """Say what a step takes at the most beside what is free, `batch` being the largest micro-batch; where
    `gradient_checkpointing` is `auto` have as many layers recomputed as are needed."""
    model = bare(policy.model)
    try:
        step = measured(policy, objective, batch, optimizer, runtime, recomputing=written == "auto", chosen=chosen)
    except RuntimeError as failure:
        if written == "selective" and "has been mutated" in str(
            failure
        ):  # torch's word for a kept product that changed
            text = (
                f"{type(model).__name__} changes products in place, so that none can be kept; true recomputes them too"
            )
            raise ModelError(f"gradient_checkpointing: {text}") from failure
        raise
    free = free_bytes(runtime.device)
    count = 0
    if written == "auto" and free is not None:
        count = fewest_recomputed(step, free, runtime.device.type)
        if count:
            recompute.recompute(model, lowest=count)
    needed = step.peak(count)
    if written == "auto":
        most = step.peak(0).to_come
        text = f"{count} of {len(step.layers)} layers are recomputed: without, a step needs {gib(most)} more"
        note("gradient_checkpointing", text if free is None else f"{text}, {gib(free)} are free")
    left = "" if free is None else f"; {gib(needed.to_come)} of it to come, {gib(free)} free"
    say(f"memory of a step, at the most {needed}{left}")
    return needed


def largest_batch(
    prepared: Prepared, division: Division, steps: int, pad_id: int, layout: Layout, parts: int = 1
) -> Batch:
    """The largest micro-batch of the first `steps` steps of the first epoch; of a stream, rows as long as any may be.
    `parts`: only so small a part of its rows."""
    if prepared.stream is None:
        rows = [row for row in largest(prepared.train.lengths, division, steps) if row != FILLER]
        rows = rows[: -(-len(rows) // parts)]
        # Others, almost as large, may share less: only what all do is sure.
        layout = layout._replace(share=min(layout.share, shared_by_all(prepared.train)))
        return batch_of(prepared.train, rows, pad_id, layout)
    ids = np.full(division.row_tokens, pad_id, dtype=np.int32)
    count = -(-division.batch_size // parts)
    made, numbers = [Sample(ids, ids)] * count, [FILLER] * count
    return join(made, numbers, multiple_of=layout.multiple_of) if layout.one_row else pad(made, numbers, pad_id=pad_id)


def measured(
    policy: Predictor,
    objective: Objective,
    batch: Batch,
    optimizer: Optimizer,
    runtime: Runtime,
    *,
    recomputing: bool,
    chosen: Chosen | None = None,
) -> Step:
    """What a step with `batch` as its largest micro-batch is made of.  One layer of each kind is run, as it is, and with
    `recomputing` also recomputed.  `chosen`: the loss, where it is not plain cross-entropy."""
    model, batch = bare(policy.model), runtime.to_device(batch)
    with runtime.autocast():
        hidden, run = _reached(policy, objective, batch, structure.layers(model)[1])
        layers = list(_layers(model, hidden, run))
        recomputed: list[Layer] = []
        if recomputing and (able := recompute.recomputable(model)):
            recompute.switch(able, "everything")
            recomputed = list(_layers(model, hidden, run))
            recompute.switch(able, None)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    adapters = sum(weight.nbytes for name, weight in model.named_parameters() if ".lora_" in name)
    kept = state(optimizer)
    loss, after_loss = _loss(policy, batch, hidden, runtime, chosen)
    beside = 0 if chosen is None else chosen.weights
    return Step(
        weights=sum(weight.nbytes for weight in model.parameters()) - adapters + beside,
        adapters=adapters,
        gradients=sum(weight.nbytes for weight in trained) * (2 if runtime.world_size > 1 else 1),  # and what travels
        optimizer=kept.kept,
        layers=layers,
        recomputed=recomputed,
        given=hidden.nbytes,
        loss=loss,
        after_loss=after_loss,
        moving=kept.moving,
        embedded=0 if runtime.device.type == "cpu" and runtime.world_size == 1 else after_loss,
    )


def bare(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model under its adapters."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


class _Reached(Exception):
    """The first layer was called."""


Run = Callable[[nn.Module, Tensor], Tensor]


def _reached(policy: Predictor, objective: Objective, batch: Batch, layers: nn.ModuleList) -> tuple[Tensor, Run]:
    """What the lowest layer is given, and how a layer is called, as the model calls the lowest."""
    called: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        called.append((args, kwargs))
        raise _Reached

    hook = layers[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        objective(policy, batch)
    except _Reached:
        pass
    finally:
        hook.remove()
    args, kwargs = called[0]
    rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]

    def run(layer: nn.Module, given: Tensor) -> Tensor:
        said = layer(given, *args[1:], **rest)
        result: Tensor = said if isinstance(said, Tensor) else said[0]
        return result

    return hidden, run


def _layers(model: PreTrainedModel, hidden: Tensor, run: Run) -> Iterator[Layer]:
    """What each layer takes; layers of one kind are measured once.  Below the lowest that trains, nothing is kept."""
    found: dict[Any, Layer] = {}
    needs_gradient = hidden.requires_grad
    for layer in structure.layers(model)[1]:
        weights = list(layer.parameters())
        kind = (type(layer), *((weight.shape, weight.dtype, weight.requires_grad) for weight in weights))
        if kind not in found:
            with torch.no_grad():
                run(layer, hidden)  # makes the masks that all layers have in common, which would count for each
            found[kind] = measure(partial(run, layer), hidden, weights)
        needs_gradient = needs_gradient or any(weight.requires_grad for weight in weights)
        yield found[kind] if needs_gradient else Layer(kept=0, forward=found[kind].forward, backward=0)


def _loss(policy: Predictor, batch: Batch, hidden: Tensor, runtime: Runtime, chosen: Chosen | None) -> tuple[int, int]:
    """Bytes the loss takes at the most, and what of it stays until the backward pass is done."""
    head, model = policy.head, bare(policy.model)
    dtype = runtime.precision.autocast or hidden.dtype
    width = hidden.shape[-1] * hidden.element_size()
    around = hidden.nbytes + 2 * batch.places.numel() * width  # the last norm's result, and what of it is asked for
    if head is None:
        vocabulary = model.config.get_text_config().vocab_size
        # Once all, or their gradient in the making, which is there twice; logarithms and gradients where it was asked.
        tokens = 2 * (hidden.numel() // hidden.shape[-1] + batch.places.numel())
        return around + tokens * vocabulary * torch.float32.itemsize, 0
    weight = head.linear.weight
    tied = weight.requires_grad and bool(structure.tied_names(model))
    capped, anchored = head.softcap is not None, chosen is not None and chosen.anchored
    return (
        around + most_bytes(batch.places.numel(), weight, dtype, softcap=capped, anchored=anchored),
        weight.nbytes if tied else 0,
    )
