"""Whether a model's config can be meant, beside the files of its weights.  Knows configs and counts; builds nothing.

A config that lacks its sizes stands for a model of billions of numbers, and one with a slip in them for more than there is
memory: both would be made before it is found that the files hold no such weights.
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from tunesmith.log import ModelError
from tunesmith.models.complete import Weights
from tunesmith.models.dropout import NAME

MARGIN = 8
"""How many times a layer's least numbers, those of one square matrix, and the embeddings' may exceed all that files hold:
no architecture comes near."""


def check(config: PreTrainedConfig, weights: Weights, where: Path) -> None:
    """Raise ModelError naming the key of `where` that cannot be meant: a dropout beyond 0 to 1, sizes of another model."""
    said = config.get_text_config().to_dict()
    for name, value in said.items():
        if NAME.search(name) and type(value) in (int, float) and not 0 <= value <= 1:
            raise ModelError(f"{where}: {name} must be a number from 0 to 1, got {value}")
    if weights.pickled or not weights.files:
        return
    layers, width, rows = (_whole(said, name) for name in ("num_hidden_layers", "hidden_size", "vocab_size"))
    if layers > weights.tensors:
        raise ModelError(f"{where}: num_hidden_layers is {layers:,}, and the files hold {weights.tensors:,} tensors")
    if rows * width + layers * width**2 > MARGIN * weights.numbers:
        raise ModelError(
            f"{where}: hidden_size {width:,}, vocab_size {rows:,} and {layers:,} layers are those of another model: the files "
            f"hold {weights.numbers:,} numbers"
        )


def _whole(said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    return value if type(value) is int and value > 0 else 0
