"""The device that a run here would be on, with what it can do.  Knows torch's view of this machine; knows no model."""

import math
import os
import time
from functools import cache

import torch

from tunesmith.config.model import ModelConfig
from tunesmith.estimate import devices
from tunesmith.estimate.devices import Device
from tunesmith.log import OptionError
from tunesmith.models import bf16_products, fp32_products
from tunesmith.models.precision import BY_NAME, CPU_FLAGS, cpu_flags, has_fp8, is_fast_bf16, told_of_cpu

CPU_BYTES = 505 << 20
"""What the interpreter, torch, transformers and a tokenizer have resident on a CPU before a weight is there; see
tests/reliability/test_estimates.py."""

TRIED = 512
"""Rows and columns of the matrices that a rate is measured with."""

TRIED_SECONDS = 0.1
"""For so long at the most: where others compute too, a few products say little."""

TRIED_ENOUGH = 16
"""As many in a row that are no faster say that nothing better will come."""


def here(cfg: ModelConfig, computed: torch.dtype | None = None) -> Device:
    """The GPU that would be used, else the CPU; its rates measured where no table has them, on a CPU of products `computed`
    in that format alone where it is known."""
    if cfg.device != "cpu" and torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        like = devices.like(found.name)
        half = like.half if like else _rate(torch.device("cuda"), torch.float16)
        fp32 = like.fp32 if like else _rate(torch.device("cuda"), torch.float32)
        watts = like.watts if like else 0.0
        name = like.name if like else found.name
        bf16 = is_fast_bf16(torch.device("cuda"))
        fp8 = has_fp8(torch.device("cuda"))
        return Device(name, "cuda", found.total_memory, half, fp32, watts, bf16=bf16, fp8=fp8)
    cpu = torch.device("cpu")
    bf16, through_fp32 = any(flag in cpu_flags() for flag in CPU_FLAGS), bf16_products.are_slow(cpu, BY_NAME["bf16"])
    fp32 = half = 0.0
    if computed in (None, torch.float32) or through_fp32:
        fast = "onednn_products" not in cfg.disable_speedups and fp32_products.are_slow(cpu, BY_NAME["fp32"])
        with fp32_products.REPLACED.while_in_use(fast):
            fp32 = _rate(cpu, torch.float32)
    if computed != torch.float32:
        half = fp32 if through_fp32 else _rate(cpu, torch.bfloat16)
    return Device(cpu_name(), "cpu", _memory_bytes(), half, fp32, 0.0, bf16=bf16, taken=CPU_BYTES)


def cpu_name() -> str:
    """`CPU (2 cores, Intel ...)`."""
    cores = len(os.sched_getaffinity(0))
    model = told_of_cpu("model name")
    return f"CPU ({cores} core{'s' * (cores > 1)}{', ' if model else ''}{model})"


def precision_on(device: Device, written: str) -> str:
    """The name of the precision that `compute_type` means there.  Raises OptionError where it has no fp8."""
    if written == "auto":
        return "bf16" if device.bf16 else "fp32"
    if written == "fp8" and not device.fp8:
        raise OptionError(
            f"compute_type: fp8 needs a GPU of compute capability 8.9 or more, which {device.name} is not"
        )
    return written


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@cache
def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a product of matrices: the best, once TRIED_ENOUGH in a row were no better by a hundredth."""
    size = TRIED if device.type == "cpu" else 8 * TRIED
    a = torch.ones(size, size, device=device, dtype=dtype)
    best, worse, end = math.inf, 0, time.perf_counter() + TRIED_SECONDS
    while best == math.inf or (worse < TRIED_ENOUGH and time.perf_counter() < end):
        began = time.perf_counter()
        float((a @ a)[0, 0])  # which waits for it
        took = time.perf_counter() - began
        worse = 0 if took < 0.99 * best else worse + 1
        best = min(best, took)
    return 2 * size**3 / best
