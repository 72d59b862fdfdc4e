"""Which implementation of attention a model runs.  Knows what is installed and what suits a device and a format."""

import importlib.util

import torch
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from tunesmith.log import OptionError

HALF = (torch.bfloat16, torch.float16)
NAMES = {"disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}
"""What users write -> what Transformers calls it."""
NOT_BUILT = ("fa3", "flex")


def choose_attention(written: str, model_class: type[PreTrainedModel], device: torch.device, dtype: torch.dtype) -> str:
    """Transformers' name of the attention that `flash_attn` means for this class of model.

    `dtype` is the format of the forward pass.  `auto` takes FlashAttention 2 when it is installed and suits device and
    format, else torch's, else (a model that torch's does not fit, such as Gemma 2) the plain one.  Raises OptionError
    naming what is available when the choice is not.
    """
    if written in NOT_BUILT:
        raise OptionError(f"flash_attn: {written} is not built yet")
    reasons = _missing(model_class, device, dtype)
    available = [name for name in ("fa2", "sdpa", "disabled") if name not in reasons]
    if written == "auto":
        return NAMES[available[0]]
    if written in reasons:
        raise OptionError(
            f"flash_attn: {written} is not available here: {reasons[written]}; available: auto, {', '.join(available)}"
        )
    return NAMES[written]


def _missing(model_class: type[PreTrainedModel], device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Choice -> why it cannot be taken."""
    reasons = {}
    if not model_class._supports_sdpa:
        reasons["sdpa"] = f"{model_class.__name__} computes attention in a way that torch's does not"
    if not model_class._supports_flash_attn:
        reasons["fa2"] = f"{model_class.__name__} does not support it"
    elif device.type != "cuda":
        reasons["fa2"] = "it needs a GPU"
    elif dtype not in HALF:
        reasons["fa2"] = "it computes in bf16 or fp16 only"
    elif importlib.util.find_spec("flash_attn") is None:
        reasons["fa2"] = "the package flash-attn is not installed"
    elif not is_flash_attn_2_available():
        reasons["fa2"] = "the installed flash-attn does not work with this torch or GPU"
    return reasons
