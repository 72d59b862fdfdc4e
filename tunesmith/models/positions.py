"""Stretches a model's rotary positions beyond the length it was made for, in its config.  Knows configs; no weights.

A factor f says how many times as many positions there are to be: `linear` divides positions by f (arXiv:2306.15595);
`dynamic` lets the base of the angles grow with the longest row that is read; `yarn` (arXiv:2309.00071) and `llama3` (Llama
3.1's) stretch slow angles and leave fast ones.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith import log
from tunesmith.log import OptionError

REACH = "max_position_embeddings"
"""What most configs call the positions that a model was made for; others say what they call it."""

RESERVED = 2
"""Positions in which some architectures keep something else."""

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
"""Between which turns over the original length an angle is half stretched, as in Llama 3.1."""


def stretch(config: PreTrainedConfig, kind: str, longest: int, *, tell: bool) -> None:
    """Make `config` reach rows of `longest` tokens: the factor is how often they exceed its positions, rounded up.

    A config that is stretched so already stays.  `tell`: with a note, or a warning where nothing is to be stretched.
    Raises OptionError for a model whose positions cannot be stretched, or are already in another way.
    """
    text = config.get_text_config()
    said = text.to_dict()
    now, reach = said.get("rope_parameters"), said.get("max_position_embeddings")
    if not now or not reach:
        raise OptionError(f"rope_scaling: a model of type {config.model_type} has no rotary positions to stretch")
    if text.nested_rope_parameter_keys(now):
        raise OptionError(f"rope_scaling: layers of {config.model_type} have positions of several kinds; not built")
    before = now.get("rope_type", "default")
    if before == kind and (longest <= reach or kind == "dynamic"):
        return
    if longest <= reach:
        if tell:
            log.warn("rope_scaling", f"has no effect: cutoff_len {longest} fits into the model's {reach} positions")
        return
    if before != "default":
        raise OptionError(
            f"rope_scaling: the model's positions are stretched already ({before}), to {reach}; cutoff_len may be at most "
            f"{reach}"
        )
    factor = float(math.ceil(longest / reach))
    text.rope_parameters = now | _parameters(kind, factor, reach)
    if kind != "dynamic":  # which goes by the length that the model was made for
        text.max_position_embeddings = int(reach * factor)
    if tell:
        log.note("rope_scaling", f"{kind} stretches the model's {reach} positions {factor:g} times")
        if kind == "dynamic":
            log.warn(
                "rope_scaling",
                "with dynamic, angles follow the longest row of each micro-batch; linear, yarn and llama3 are steadier",
            )


def _parameters(kind: str, factor: float, reach: int) -> dict[str, Any]:
    """What Transformers wants to know of a kind."""
    named: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind in ("yarn", "llama3"):
        named["original_max_position_embeddings"] = reach
    return named | (LLAMA3 if kind == "llama3" else {})


def forget_lengths(model: PreTrainedModel) -> None:
    """Let `dynamic` positions depend on what is read now alone.  Transformers keeps the longest length it has seen, so
    that a run that goes on would compute otherwise than one that was never interrupted."""
    for module in model.modules():
        if vars(module).get("rope_type") == "dynamic":
            module.register_forward_pre_hook(_forget)


def _forget(module: nn.Module, _: Any) -> None:
    kept = dict(module.named_buffers(recurse=False, remove_duplicate=False)) | vars(module)
    original = kept["original_inv_freq"]
    assert isinstance(original, torch.Tensor)
    module.register_buffer("inv_freq", original.to(kept["inv_freq"].device), persistent=False)
    module.max_seq_len_cached = kept["original_max_seq_len"]


def reach(config: PreTrainedConfig) -> int | None:
    """Positions that a model was made for; None where it does not say."""
    text = config.get_text_config()
    said = text.to_dict().get(text.attribute_map.get(REACH, REACH))
    return said if type(said) is int and said > 0 else None


def check_reach(model: PreTrainedModel, longest: int) -> None:
    """Warn where rows of `longest` tokens are longer than what the model was made for.  Raises OptionError where it has learned
    its positions one by one, and has none beyond."""
    most = reach(model.config)
    if most is None or longest <= most:
        return
    inputs = model.get_input_embeddings()
    tables = (each for each in model.modules() if isinstance(each, nn.Embedding) and each is not inputs)
    if any(most <= table.num_embeddings <= most + RESERVED for table in tables):
        raise OptionError(
            f"cutoff_len: rows have up to {longest} tokens, and the model has {most} positions; {most} fits"
        )
    log.warn(
        "cutoff_len",
        f"rows have up to {longest} tokens, and the model was made for {most}; rope_scaling stretches rotary positions",
    )
