"""Which weights share a learning rate and a weight decay.  Knows parameter names; knows no optimizer."""

from collections.abc import Callable
from typing import Any

from torch import nn

from tunesmith.config.optim import OptimConfig
from tunesmith.log import OptionError
from tunesmith.optim.marks import marks

LORA_FIRST = (".lora_A.",)
LORA_SECOND = (".lora_B.",)
LORA_EMBEDDING = (".lora_embedding_A.", ".lora_embedding_B.")
LORA = (*LORA_FIRST, *LORA_SECOND, *LORA_EMBEDDING, ".lora_magnitude_vector.")
"""Parts of parameter names by which peft marks LoRA's weights."""


def build(model: nn.Module, cfg: OptimConfig) -> list[dict[str, Any]]:
    """Parameter groups of the trained weights, each `{"params": [(name, parameter), ...], "lr", "weight_decay"}` and what the
    optimizer must be told of single weights.

    Weights of which all this is the same share a group; groups and weights keep the model's order.  A tied
    weight appears once.  Raises OptionError when nothing is trained, or an option names LoRA weights and there are none.
    """
    rate = _learning_rates(cfg)
    undecayed, mark = _undecayed(model), marks(model, cfg)
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    found: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        found.update(mark for mark in LORA if mark in name)
        lr, decay = rate(name), 0.0 if name in undecayed else cfg.weight_decay
        settings = {"lr": lr, "weight_decay": decay} | mark(name, parameter)
        group = groups.setdefault(tuple(settings.items()), {"params": []} | settings)
        group["params"].append((name, parameter))
    if not groups:
        raise OptionError("finetuning_type: no weight of the model is trained")
    _check_lora_options(cfg, found)
    return list(groups.values())


def _learning_rates(cfg: OptimConfig) -> Callable[[str], float]:
    lora = cfg.lora_learning_rate or cfg.learning_rate

    def rate(name: str) -> float:
        if not _marked(name, LORA):
            return cfg.learning_rate
        if cfg.loraplus_lr_ratio is not None and _marked(name, LORA_EMBEDDING):
            return cfg.loraplus_lr_embedding
        if cfg.loraplus_lr_ratio is not None and _marked(name, LORA_SECOND):
            return lora * cfg.loraplus_lr_ratio
        return lora

    return rate


def _undecayed(model: nn.Module) -> set[str]:
    """Names of vectors, biases and the weights of norms: decay would only pull their scale towards zero."""
    names = set()
    for prefix, module in model.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.ndim < 2 or is_norm or name.endswith("bias"):
                names.add(name)
    return names


def _check_lora_options(cfg: OptimConfig, found: set[str]) -> None:
    problems = []
    if cfg.lora_learning_rate is not None and not found:
        problems.append("lora_learning_rate: no LoRA weights are trained here; write learning_rate")
    if cfg.loraplus_lr_ratio is not None and not found.intersection((*LORA_SECOND, *LORA_EMBEDDING)):
        problems.append("loraplus_lr_ratio: no LoRA weights are trained here")
    if problems:
        raise OptionError(*problems)


def _marked(name: str, marks: tuple[str, ...]) -> bool:
    return any(mark in name for mark in marks)
