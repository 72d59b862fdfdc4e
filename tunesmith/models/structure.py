"""How a model is built: its layers, its linear modules, its head, and names for some of them.  Knows no tuning method."""

from collections.abc import Collection, Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

VISION = ("visual", "vision_tower", "vision_model", "vision_encoder", "multi_modal_projector", "audio_tower")
"""Parts of module names that belong to pictures or sound."""


def layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The decoder's layers and their name: the first list of modules that is as long as the config says there are
    layers."""
    wanted = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, module
    raise AssertionError(f"{type(model).__name__} has no list of {wanted} layers")


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of all linear modules but the head and those of vision and audio parts, in the model's order."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if is_linear(module) and module is not head and not set(name.split(".")) & set(VISION)
    ]


def adaptable_names(model: PreTrainedModel) -> list[str]:
    """Full names of all modules that can have LoRA: linear ones, the head included, and embeddings."""
    return [name for name, module in model.named_modules() if is_linear(module) or isinstance(module, nn.Embedding)]


def is_linear(module: nn.Module) -> bool:
    """Whether the module is a linear map: torch's, GPT-2's, bitsandbytes', which are torch's too, or HQQ's."""
    return isinstance(module, nn.Linear | Conv1D) or type(module).__name__ == "HQQLinear"


def tied_names(model: PreTrainedModel) -> list[str]:
    """Full names of the embeddings and the head when they are one weight, else none."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = [weight for module in ends if isinstance(module, nn.Module) for weight in module.parameters()]
    if len({id(weight) for weight in weights}) == len(weights):
        return []
    return [name for name, module in model.named_modules() if module in ends]


def attention_names(model: PreTrainedModel) -> list[str]:
    """Full names of the linear modules inside attention, told by their parents' names (`self_attn`, `attention`)."""
    return [name for name in linear_names(model) if _in_attention(name)]


def feedforward_names(model: PreTrainedModel) -> list[str]:
    """Full names of the linear modules of the layers outside attention."""
    prefix = layers(model)[0] + "."
    return [name for name in linear_names(model) if name.startswith(prefix) and not _in_attention(name)]


def named_by(endings: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of `names` that are, or end in a dot and, one of `endings`."""
    ends = set(endings)
    return [name for name in names if any(tail in ends for tail in tails(name))]


def tails(name: str) -> list[str]:
    """`a.b.c` -> `c`, `b.c`, `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]


def shorten(wanted: Collection[str], names: Iterable[str]) -> list[str]:
    """The shortest endings that together mean exactly `wanted` among `names`: `q_proj`, else `attn.c_proj`, else full
    names."""
    everything, chosen = list(names), set(wanted)
    for depth in range(1, max(name.count(".") for name in chosen) + 1):
        endings = {tails(name)[min(depth, name.count(".") + 1) - 1] for name in chosen}
        if not any(end[0].isdigit() for end in endings) and set(named_by(endings, everything)) == chosen:
            return sorted(endings)
    return sorted(chosen)


def endings(names: Iterable[str]) -> list[str]:
    """The last parts of the names, each once, to list in a message."""
    return sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})


def _in_attention(name: str) -> bool:
    return any("attn" in part or "attention" in part for part in name.split(".")[:-1])
