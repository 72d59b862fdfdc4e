"""Which of torch's matrix products are made in another way on this CPU, for a run's numbers."""

import mmap
import resource
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from tunesmith.models import bf16_products, fp32_products
from tunesmith.models.kernels import Kernel, Replaced
from tunesmith.models.precision import Precision

BESIDE = 8 << 20
"""Bytes for which there must be room beside the copies of factors and product that oneDNN may make."""


def choose(device: torch.device, precision: Precision, left_out: Collection[str]) -> None:
    """From now on in this process make products as `precision` is computed fastest on `device`, unless that is
    `left_out` by the name that `disable_speedups` has for it."""
    ASKING.use(False)  # for it goes around the others
    bf16_products.REPLACED.use("fp32_products" not in left_out and bf16_products.are_slow(device, precision))
    fp32_products.REPLACED.use("onednn_products" not in left_out and fp32_products.are_slow(device, precision))
    ASKING.use(device.type == "cpu" and resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY)


def _asking(kernel: Kernel) -> Kernel:
    """The kernel, where there is room for it: the system says so here when there is none, while oneDNN, which asks it by
    itself, would end the process."""

    def ask(keys: Any, *factors: Tensor, **more: Any) -> Any:
        one, other = factors[-2:]
        size = one.shape[:-1].numel() * other.shape[-1]
        mmap.mmap(-1, (one.numel() + other.numel() + size) * one.itemsize + BESIDE).close()
        return kernel(keys, *factors, **more)

    return ask


ASKING = Replaced(dict.fromkeys(("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"), _asking))
"""For a process whose address space has a limit."""
