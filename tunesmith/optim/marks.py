"""What an optimizer must be told of single weights: which are matrices, projected, heads of attention, layers.  Knows models by
their modules and names; knows no step."""

import re
from collections.abc import Callable
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from tunesmith.config.optim import OptimConfig
from tunesmith.log import OptionError
from tunesmith.optim.adam_mini import EACH, ROWS
from tunesmith.optim.badam import NEVER

Mark = Callable[[str, nn.Parameter], dict[str, Any]]
"""Name and weight -> settings of its group beyond learning rate and decay."""

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")
"""Where a weight's name says in which layer it lies."""

HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
"""Projection with heads -> how many, by its name in configs."""

ALL = ("all", "all-linear", "all_linear")


def marks(model: nn.Module, cfg: OptimConfig) -> Mark:
    """What the optimizer of `cfg` must be told.  Raises OptionError for targets that match nothing."""
    maker = MAKERS.get(cfg.optim.lower())
    return maker(model, cfg) if maker else lambda name, weight: {}


def muon(model: nn.Module, cfg: OptimConfig) -> Mark:
    """Matrices are Muon's, but for embeddings and the output head."""
    vocabulary = _vocabulary(model)
    return lambda name, weight: {"muon": weight.ndim == 2 and id(weight) not in vocabulary}


def galore(model: nn.Module, cfg: OptimConfig) -> Mark:
    """Weights of the linear layers that `galore_target` names are projected."""
    settings = {
        "rank": cfg.galore_rank,
        "update_interval": cfg.galore_update_interval,
        "scale": cfg.galore_scale,
        "proj_type": cfg.galore_proj_type,
    }
    return _projected(model, cfg, "galore_target", cfg.galore_target, settings)


def apollo(model: nn.Module, cfg: OptimConfig) -> Mark:
    """Weights of the linear layers that `apollo_target` names are projected."""
    settings = {
        "rank": cfg.apollo_rank,
        "update_interval": cfg.apollo_update_interval,
        "scale": cfg.apollo_scale,
        "proj": cfg.apollo_proj,
        "proj_type": cfg.apollo_proj_type,
        "scale_type": cfg.apollo_scale_type,
        "scale_front": cfg.apollo_scale_front,
    }
    return _projected(model, cfg, "apollo_target", cfg.apollo_target, settings)


def adam_mini(model: nn.Module, cfg: OptimConfig) -> Mark:
    """Blocks of each weight: heads of queries and keys, rows of other matrices, norms as a whole, biases entry by entry."""
    base = _base(model)
    said = base.config.get_text_config().to_dict() if isinstance(base, PreTrainedModel) else {}

    def mark(name: str, weight: nn.Parameter) -> dict[str, Any]:
        if name.endswith("bias"):
            return {"blocks": EACH}
        if weight.ndim < 2:
            return {"blocks": 1}
        heads = next((said.get(key) or said.get("num_attention_heads") for part, key in HEADS.items()
                      if f".{part}.weight" in name), None)  # fmt: skip
        return {"blocks": heads if heads and weight.shape[0] % heads == 0 else ROWS}

    return mark


def badam(model: nn.Module, cfg: OptimConfig) -> Mark:
    """The decoder layer of each weight; in `ratio`, one block of all but embeddings and the output head."""
    if cfg.badam_mode == "ratio":
        vocabulary = _vocabulary(model)
        return lambda name, weight: {"block": NEVER if id(weight) in vocabulary else 0}

    def mark(name: str, weight: nn.Parameter) -> dict[str, Any]:
        found = LAYER.search(name)
        return {"block": int(found[1]) if found else NEVER}

    return mark


MAKERS: dict[str, Callable[[nn.Module, OptimConfig], Mark]] = {
    "muon": muon,
    "galore_adamw": galore,
    "galore_adafactor": galore,
    "apollo_adamw": apollo,
    "adam_mini": adam_mini,
    "badam": badam,
}


def _projected(model: nn.Module, cfg: OptimConfig, option: str, target: list[str], settings: dict[str, Any]) -> Mark:
    option = "optim_target_modules" if cfg.optim_target_modules else option
    wanted = cfg.optim_target_modules or target
    vocabulary = _vocabulary(model)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = {
        id(module.weight)
        for name, module in linear.items()
        if id(module.weight) not in vocabulary and any(_means(one, name) for one in wanted)
    }
    if not chosen:
        names = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise OptionError(f"{option}: matches no linear layer; there are {', '.join(names)}; or all")
    settings |= {name: value for name, value in cfg.optim_args.items() if name in settings}
    return lambda name, weight: settings if id(weight) in chosen else {"rank": 0}


def _means(wanted: str, name: str) -> bool:
    """Whether a target means this module: `all`, a part of its name, or a regular expression for the whole."""
    if wanted in ALL or wanted in name:
        return True
    try:
        return re.fullmatch(wanted, name) is not None
    except re.error:
        return False


def _base(model: nn.Module) -> nn.Module:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _vocabulary(model: nn.Module) -> set[int]:
    """Ids of the weights that have a row per token: embeddings and the output head."""
    base = _base(model)
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if isinstance(base, PreTrainedModel) and base.get_output_embeddings() is not None:
        modules.append(base.get_output_embeddings())
    return {id(weight) for module in modules for weight in module.parameters()}
