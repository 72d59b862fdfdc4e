"""What an adapter must carry besides its trained weights, so that it fits the base model as it lies on disk.

Two things change the base under an adapter while training: earlier adapters merged into it, and the starts of PiSSA and
OLoRA, which take out of the base what they put into the adapter.  Both are low-rank, so the saved adapter takes them
along as further rows of A and columns of B (PiSSA, arXiv:2404.02948, appendix C):

    base + s B A + sum_i B_i A_i  =  base + [s B, B_1, B_2, ...] [A; A_1; A_2; ...]

and any program that reads plain LoRA files gets the trained model.
"""

import copy
import re
from collections import Counter

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Embedding as LoraEmbedding
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

ADAPTER = "default"
PREFIX = "base_model.model."
"""What peft puts before a module's name."""

Factors = dict[str, tuple[Tensor, Tensor]]
"""Module -> A [rank, in] and B [out, rank], LoRA's scale within B, in fp32 on the CPU."""


class Carried(nn.Module):
    """Factors of what changed the base, kept as part of the tuned model.  Has no weights: nothing here is trained."""

    def __init__(self, factors: Factors, names: tuple[str, ...]) -> None:
        super().__init__()
        self.factors = factors
        self.names = names
        """The merged adapters."""


def factors_of(model: PeftModel) -> Factors:
    """The factors of a LoRA adapter as it stands, copied."""
    found = {}
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer) and ADAPTER in layer.scaling:
            first, second = _matrices(layer)
            found[name] = (_copy(first), _copy(second * layer.scaling[ADAPTER]))
    return found


def joined(one: Factors, other: Factors) -> Factors:
    """The sum of two changes."""
    both = dict(one)
    for name, (first, second) in other.items():
        if name in both:
            first, second = torch.cat([both[name][0], first]), torch.cat([both[name][1], second], dim=1)
        both[name] = (first, second)
    return both


def negated(factors: Factors) -> Factors:
    """The opposite change."""
    return {name: (first, -second) for name, (first, second) in factors.items()}


def carry(model: PeftModel, factors: Factors, names: tuple[str, ...]) -> None:
    """Remember in `model` that its base was changed by `factors`, which come from the adapters `names` or its start."""
    if factors:
        model.add_module("carried", Carried(factors, names))


def carried_by(model: PeftModel) -> Carried | None:
    """What `carry` put there."""
    return next((child for child in model.children() if isinstance(child, Carried)), None)


def with_carried(
    model: PeftModel, config: LoraConfig, state: dict[str, Tensor]
) -> tuple[LoraConfig, dict[str, Tensor], tuple[str, ...]]:
    """The adapter's config and tensors as they must be saved, and the names of the adapters that are in it."""
    carried = carried_by(model)
    if carried is None:
        return config, state, ()
    embeddings = {
        name
        for name, layer in model.get_base_model().named_modules()
        if isinstance(layer, LoraEmbedding | nn.Embedding)
    }
    state = dict(state)
    factors = joined(factors_of(model), carried.factors)
    for name, (first, second) in factors.items():
        for kind, tensor in (("A", first), ("B", second)):
            key = f"lora_embedding_{kind}" if name in embeddings else f"lora_{kind}.weight"
            state[f"{PREFIX}{name}.{key}"] = tensor.contiguous()
    return _plain_config(config, {name: len(first) for name, (first, _) in factors.items()}), state, carried.names


def _plain_config(config: LoraConfig, ranks: dict[str, int]) -> LoraConfig:
    """A config of scale 1 for adapters of these ranks."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    unusual = {re.escape(name): rank for name, rank in ranks.items() if rank != usual}
    plain = copy.deepcopy(config)
    plain.r = plain.lora_alpha = usual
    plain.rank_pattern = unusual
    plain.alpha_pattern = dict(unusual)
    plain.use_rslora = False
    plain.init_lora_weights = True
    plain.target_modules = set(ranks)
    return plain


def _matrices(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    if isinstance(layer, LoraEmbedding):
        return layer.lora_embedding_A[ADAPTER], layer.lora_embedding_B[ADAPTER]
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)
