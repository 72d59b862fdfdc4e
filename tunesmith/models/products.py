"""Which of torch's matrix products are made in another way on this CPU, for a run's numbers."""

from collections.abc import Collection

import torch

from tunesmith.models import bf16_products, fp32_products
from tunesmith.models.precision import Precision


def choose(device: torch.device, precision: Precision, left_out: Collection[str]) -> None:
    """From now on in this process make products as `precision` is computed fastest on `device`, unless that is
    `left_out` by the name that `disable_speedups` has for it."""
    bf16_products.REPLACED.use("fp32_products" not in left_out and bf16_products.are_slow(device, precision))
    fp32_products.REPLACED.use("onednn_products" not in left_out and fp32_products.are_slow(device, precision))
