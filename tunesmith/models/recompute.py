"""Which decoder layers are computed a second time in the backward pass, and what of them is kept meanwhile.  Knows models and
torch's checkpointing; knows no memory and no estimate."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tunesmith import log
from tunesmith.log import ModelError
from tunesmith.models.dropout import has_dropout
from tunesmith.models.structure import layers as decoder
from tunesmith.models.weights import quiet

Way = Literal["everything", "selective", "offload"]
"""`everything`: only a layer's input is kept; `offload`: in the CPU's memory; `selective`: its matrix products too."""

ASKED: dict[bool | str, Way] = {True: "everything", "selective": "selective", "offload": "offload"}
"""`gradient_checkpointing` -> the way, where it asks for one."""

WIDE = 128
"""Terms of each sum from which on a matrix product is kept: a narrow one, such as an adapter's, is soon made again."""

aten = torch.ops.aten
PRODUCTS = {aten.mm.default: 0, aten.addmm.default: 1}
"""Matrix product -> which of its arguments has as many columns as sums have terms."""

ATTENTION = {
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._flash_attention_forward.default,
}
"""Attention in one kernel, whose result is as small as its input."""


def recompute(model: PreTrainedModel, way: Way = "everything", *, lowest: int | None = None) -> None:
    """Have the `lowest` decoder layers, or all, be made again going back.

    The lowest, since those above are done with when they are reached.  Results keep their bits: random numbers are drawn
    again as they were.  Raises ModelError when the model's layers know nothing of it.
    """
    able = recomputable(model)
    if not able and way == "everything" and lowest is None and model.supports_gradient_checkpointing:
        with quiet():  # code of the model's own, by a flag that is read somewhere in it
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
        return
    if not able:
        word = "it" if way == "everything" else way
        raise ModelError(f"gradient_checkpointing: {type(model).__name__} does not support {word}")
    if way == "offload" and model.device.type == "cpu":
        log.note(
            "gradient_checkpointing", "offload keeps layers' inputs in the CPU's memory, where they are: same as true"
        )
        way = "everything"
    switch(able[:lowest], way)
    switch([] if lowest is None else able[lowest:], None)


def recomputable(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The decoder's layers, lowest first; empty when they can't be switched one by one."""
    found = list(decoder(model)[1])
    able = [layer for layer in found if isinstance(layer, GradientCheckpointingLayer)]
    return able if len(able) == len(found) else []


def need_no_gradients_of_inputs(model: PreTrainedModel) -> None:
    """Undo what peft does where layers are recomputed: have the embeddings' output ask for a gradient, so that all layers
    below the lowest adapter are gone through for nothing.  Torch's older way to recompute needed it."""
    if recomputable(model):
        model.disable_input_require_grads()


def switch(layers: Sequence[GradientCheckpointingLayer], way: Way | None) -> None:
    """Let each of the layers be recomputed in this way, or in none."""
    for layer in layers:
        layer.gradient_checkpointing = way is not None
        if way is not None:
            # Where Transformers' layers look for what runs them; its own switch knows all layers or every n-th.
            layer._gradient_checkpointing_func = _Again(layer, WAYS[way])


class _Again:
    """Runs a layer so that it is made again.  Keeps random states only where it leaves anything out at random, which is known
    once it trains: they can't be asked for while a GPU's work is recorded."""

    def __init__(self, layer: GradientCheckpointingLayer, way: Callable[..., Any]):
        self._layer, self._way = layer, way
        self._random: bool | None = None

    def __call__(self, *args: Any) -> Any:
        if self._random is None:
            self._random = has_dropout(self._layer)
        return self._way(*args, preserve_rng_state=self._random)


def _offloaded(run: Callable[..., Any], *args: Any, preserve_rng_state: bool) -> Any:
    """Keep what the layer was given in pinned memory of the CPU."""
    with save_on_cpu(pin_memory=True):
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


def _products_kept() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    contexts: tuple[AbstractContextManager[Any], AbstractContextManager[Any]] = create_selective_checkpoint_contexts(
        _keep
    )
    return contexts


def _keep(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Wide products and fused attention are kept; norms, activations, casts and narrow products are made again."""
    place = PRODUCTS.get(op)
    wide = place is not None and args[place].shape[-1] >= WIDE
    return CheckpointPolicy.MUST_SAVE if wide or op in ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE


WAYS: dict[Way, Callable[..., Any]] = {
    "everything": partial(checkpoint, use_reentrant=False),
    "selective": partial(checkpoint, use_reentrant=False, context_fn=_products_kept),
    "offload": _offloaded,
}
