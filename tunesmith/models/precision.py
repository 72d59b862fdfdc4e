"""In which number formats a run computes and holds its weights.  Knows devices and formats; knows no model.

Two questions are kept apart: what the forward and backward pass compute in (autocast), and what weights are held in,
where frozen ones may be short while trained ones need bits for small steps.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tunesmith import log
from tunesmith.config.tuning import TuningConfig
from tunesmith.log import OptionError

CPU_FLAGS = ("avx512_bf16", "amx_bf16")
"""Either one makes bf16 at least as fast as fp32 on a CPU."""


@dataclass(frozen=True, slots=True)
class Precision:
    """`autocast`: the format of the passes, None to compute in the weights' own; `weights`: of frozen weights;
    `trained`: of trained ones; `scaler`: whether gradients need a loss scaler."""

    name: str
    autocast: torch.dtype | None
    weights: torch.dtype
    trained: torch.dtype
    scaler: bool = False
    short: bool = False
    """Whether the products of linear layers are made of numbers of 8 bits."""

    def load_dtype(self, cfg: TuningConfig) -> torch.dtype:
        """The format to load a base model in: the trained weights' one whenever some of its own weights are trained,
        so that none is rounded on the way."""
        trains_base = cfg.finetuning_type in ("full", "freeze") or bool(cfg.additional_target)
        return self.trained if trains_base else self.weights


BY_NAME = {
    "fp32": Precision("fp32", None, torch.float32, torch.float32),
    "bf16": Precision("bf16", torch.bfloat16, torch.bfloat16, torch.float32),
    "pure_bf16": Precision("pure_bf16", None, torch.bfloat16, torch.bfloat16),
    "fp16": Precision("fp16", torch.float16, torch.float16, torch.float32, scaler=True),
    "fp8": Precision("fp8", torch.bfloat16, torch.bfloat16, torch.float32, short=True),
}


def resolve_compute_type(name: str, device: torch.device) -> Precision:
    """The formats for `compute_type` on `device`.  Raises OptionError naming what the device supports."""
    if name == "auto":
        return BY_NAME["bf16" if is_fast_bf16(device) else "fp32"]
    supported = _supported(device)
    if name not in supported:
        if name == "fp8":
            raise OptionError(
                f"compute_type: fp8 needs a GPU of compute capability 8.9 or more; this {device.type} supports "
                f"{', '.join(supported)}"
            )
        raise OptionError(
            f"compute_type: {name} does not work on this {device.type}; it supports {', '.join(supported)}"
        )
    if device.type == "cpu" and "bf16" in name and not is_fast_bf16(device):
        log.warn("compute_type", f"this CPU has no instructions for bf16: {name} works, and is slower than fp32")
    return BY_NAME[name]


def allow_tf32(device: torch.device) -> None:
    """Let products of fp32 numbers be made in TensorFloat-32.  Raises OptionError for a GPU that has none."""
    if device.type != "cuda":
        log.warn("tf32", f"has no effect: this {device.type} multiplies fp32 numbers as they are")
    elif torch.cuda.get_device_capability(device) < (8, 0):
        raise OptionError("tf32: needs a GPU of compute capability 8.0 or more")
    else:
        torch.backends.cuda.matmul.allow_tf32 = True


def settle(model: PreTrainedModel, precision: Precision) -> None:
    """Hold trained weights in `precision.trained` and frozen ones in `precision.weights`, but for those that the
    architecture always keeps in fp32."""
    kept = model._keep_in_fp32_modules_strict or ()
    always = re.compile("|".join(rf"(^|\.){name}(\.|$)" for name in kept) or "(?!)")
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or always.search(name):
            continue
        weight.data = weight.data.to(precision.trained if weight.requires_grad else precision.weights)


def _supported(device: torch.device) -> list[str]:
    short = ["fp8"] if has_fp8(device) else []
    if device.type == "cpu":
        return ["bf16", "pure_bf16", "fp32", *short]
    return ["bf16", "pure_bf16", "fp16", "fp32", *short] if is_fast_bf16(device) else ["fp16", "fp32"]


def has_fp8(device: torch.device) -> bool:
    """Whether the device multiplies numbers of 8 bits by itself."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def is_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth computing in there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(flag in cpu_flags() for flag in CPU_FLAGS)


def cpu_flags() -> frozenset[str]:
    """The CPU's instruction sets, as Linux names them; none are known elsewhere."""
    return frozenset(told_of_cpu("flags").split())


def told_of_cpu(name: str) -> str:
    """What Linux tells of the CPU under a name, such as `model name`; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
