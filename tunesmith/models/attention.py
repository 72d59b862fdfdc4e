"""Which implementation of attention a model runs.  Knows what is installed and what suits a device and a format."""

import importlib.util

import torch
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from tunesmith.log import MissingExtra, OptionError

HALF = (torch.bfloat16, torch.float16)
NAMES = {
    "disabled": "eager",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
    "flex": "flex_attention",
}
"""What users write -> what Transformers calls it."""

BEST_FIRST = ("fa3", "fa2", "sdpa", "disabled")
"""What `auto` chooses from."""

PACKAGES = {
    "fa2": ("flash_attn", "pip install flash-attn --no-build-isolation"),
    "fa3": ("flash_attn_interface", "build it from the folder `hopper` of github.com/Dao-AILab/flash-attention"),
}
"""Choice -> the package it is, and how to get it."""


def choose_attention(written: str, model_class: type[PreTrainedModel], device: torch.device, dtype: torch.dtype) -> str:
    """Transformers' name of the attention that `flash_attn` means for this class of model.

    `dtype` is the format of the forward pass.  `auto` takes FlashAttention when it is installed and suits device and
    format, else torch's, else (a model that torch's does not fit, such as Gemma 2) the plain one.  Raises OptionError
    naming what is available when the choice is not, and MissingExtra when only its package is missing.
    """
    reasons = _missing(model_class, device, dtype)
    available = [name for name in (*BEST_FIRST, "flex") if name not in reasons]
    absent = [name for name in available if name in PACKAGES and importlib.util.find_spec(PACKAGES[name][0]) is None]
    if written in absent:
        raise MissingExtra(f"flash_attn: {written} is not installed; {PACKAGES[written][1]}")
    available = [name for name in available if name not in absent and _works(name)]
    if written == "auto":
        return NAMES[available[0]]
    if written in PACKAGES and written not in reasons and written not in available:
        reasons[written] = "what is installed does not work with this torch or GPU"
    if written in reasons:
        raise OptionError(
            f"flash_attn: {written} is not available here: {reasons[written]}; available: auto, {', '.join(available)}"
        )
    return NAMES[written]


def _missing(model_class: type[PreTrainedModel], device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Choice -> why it cannot be taken, whatever is installed."""
    reasons = {}
    if not model_class._supports_sdpa:
        reasons["sdpa"] = f"{model_class.__name__} computes attention in a way that torch's does not"
    if device.type != "cuda":
        reasons["flex"] = "it needs a GPU"
    elif not model_class._supports_flex_attn:
        reasons["flex"] = f"{model_class.__name__} does not support it"
    for name in PACKAGES:
        if not model_class._supports_flash_attn:
            reasons[name] = f"{model_class.__name__} does not support it"
        elif device.type != "cuda":
            reasons[name] = "it needs a GPU"
        elif dtype not in HALF:
            reasons[name] = "it computes in bf16 or fp16 only"
    return reasons


def _works(name: str) -> bool:
    """Whether an installed package suits torch and the GPU; True for what is no package."""
    if name == "fa3":
        return is_flash_attn_3_available() and torch.cuda.get_device_capability()[0] >= 8
    return name != "fa2" or is_flash_attn_2_available()
