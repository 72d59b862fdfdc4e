"""Sets every dropout that a model has of its own.  Knows how models hold one; knows nothing of LoRA's."""

import re
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith import log
from tunesmith.log import OptionError
from tunesmith.models import structure

NAME = re.compile(r"dropout|pdrop$")
"""What architectures call one.  Another part that is left out at random, a whole layer (`layerdrop`), is none."""


def announce(config: PreTrainedConfig, rate: float) -> None:
    """Write `rate` into a config, for a model that is about to be made: some make no dropout where it is 0."""
    text = config.get_text_config()
    for name, value in text.to_dict().items():
        if NAME.search(name) and type(value) in (int, float):
            setattr(text, name, rate)


def set_all(model: PreTrainedModel, rate: float) -> None:
    """Give every dropout in the model this rate, and tell which they are.  Raises OptionError when there is none."""
    found = []
    for name, module, key in _every(model):
        setattr(module, key, rate)
        found.append(name)
    if not found:
        raise OptionError(f"dropout_rate: a model of type {model.config.model_type} has no dropout; leave it out")
    log.note("dropout_rate", f"{rate} for {', '.join(structure.endings(found))}, {len(found)} in all")


def has_dropout(model: nn.Module) -> bool:
    """Whether the model leaves anything out at random while it is trained."""
    return any(module.__dict__[key] > 0 for _, module, key in _every(model))


def _every(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name of each dropout, the module that holds its rate, and under which attribute."""
    for name, module in model.named_modules():
        if isinstance(module, _DropoutNd):
            yield name, module, "p"
        else:
            for key, value in list(vars(module).items()):
                if NAME.search(key) and type(value) in (int, float):
                    yield f"{name}.{key}", module, key
