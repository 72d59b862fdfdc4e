"""Which packages hold weights in few bits.  Knows names; imports no torch."""

import importlib.util

from tunesmith.config.model import ModelConfig
from tunesmith.log import MissingExtra

PACKAGES = {"bnb": "bitsandbytes", "hqq": "hqq"}
"""`quantization_method` -> its package, which is also the name of the extra that brings it."""


def require(cfg: ModelConfig) -> None:
    """Raise MissingExtra when weights are to be held in few bits, and the package for it is missing."""
    if cfg.quantization_bit is None:
        return
    package = PACKAGES[cfg.quantization_method]
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"quantization_bit needs a package: pip install 'tunesmith[{package}]'")
