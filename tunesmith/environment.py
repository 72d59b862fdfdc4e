"""What is installed on this machine, for a bug report.  Reads package metadata; imports torch only when asked to."""

import os
import platform
import sys
from importlib import metadata

from tunesmith import __version__, log
from tunesmith.catalog import did_you_mean

LIBRARIES = (
    "torch", "transformers", "tokenizers", "peft", "accelerate", "datasets", "safetensors", "numpy", "pydantic",
    "ruamel.yaml", "flash-attn",
)  # fmt: skip
WIDTH = 18


def env_command(words: list[str]) -> int:
    """Print versions and hardware; `--full` also asks torch what it can use, which takes seconds."""
    for word in words:
        if word != "--full":
            raise log.OptionError(f"env: '{word}' is no option{did_you_mean(word, ['--full'])}")
    for name, value in facts(full="--full" in words).items():
        log.say(f"{name + ':':{WIDTH}} {value}")
    return 0


def facts(full: bool = False) -> dict[str, str]:
    """What is worth knowing, in reading order."""
    found = {
        "tunesmith": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "gpus": _gpus(),
    }
    found |= {name: _version(name) or "not installed" for name in LIBRARIES}
    found |= {f"extra {name}": state for name, state in _extras().items()}
    return found | (_torch() if full else {})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _gpus() -> str:
    from tunesmith.jobs import processes

    return f"{processes.gpus()} visible"


EXTRAS = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "modelscope": "modelscope",
    "http": "aiohttp",
    "metrics": "sacrebleu",
    "liger": "liger-kernel",
    "eval": "lm-eval",
    "bitsandbytes": "bitsandbytes",
    "hqq": "hqq",
    "torchao": "torchao",
    "schedulefree": "schedulefree",
    "optimi": "torch-optimi",
}
"""Extra -> the package it brings."""


def _extras() -> dict[str, str]:
    return {
        extra: _version(package) or f'not installed; pip install "tunesmith[{extra}]"'
        for extra, package in EXTRAS.items()
    }


def _torch() -> dict[str, str]:
    import torch

    found = {"torch threads": str(torch.get_num_threads()), "cuda": torch.version.cuda or "none"}
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found[f"gpu {index}"] = f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
    return found
