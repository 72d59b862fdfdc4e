"""Merges adapters into a model that is held whole, in fp32, through peft: what cannot be done file by file.

Knows the order of things; knows nothing of what the files hold.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tunesmith.config.model import ModelConfig
from tunesmith.models.load import load_model
from tunesmith.models.save import save_weights
from tunesmith.models.tuning.adapters import merge
from tunesmith.models.where import Source

ATTENTION = "eager"
"""Nothing is computed with it; every architecture has it."""


def write(
    source: Source,
    adapters: Sequence[Source],
    cfg: ModelConfig,
    folder: Path,
    *,
    most_bytes: int,
    device: torch.device,
    bins: bool = False,
) -> None:
    """Write the merged model's weights and `config.json` into `folder`, each weight rounded once, to the base's type;
    with `bins` as `.bin` files.

    Raises ModelError for a base or an adapter that is damaged or does not fit, RunError for a result that is not finite.
    """
    model = load_model(source, cfg, dtype=torch.float32, device=device, trainable=False, attention=ATTENTION)
    save_weights(merge(model, adapters), folder, most_bytes=most_bytes, bins=bins)
