"""Weights as `.bin` files, which torch pickles: written from safetensors, read without running what they hold.

Knows files; knows no model.  For programs that read nothing else: a pickled file may hold a program, and whoever opens it
with less care runs that.
"""

import json
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tunesmith.log import ModelError
from tunesmith.models import adapter_files, complete

HOLDS_FILE = "adapter_holds.json"
"""What the metadata of an adapter's safetensors says has no place in a `.bin` file."""


def instead_of_safetensors(folder: Path) -> None:
    """Turn the weights in `folder`, a model's or an adapter's, into `.bin` files under the names they have there."""
    adapter = folder / adapter_files.WEIGHTS
    if adapter.is_file():
        with safe_open(adapter, framework="pt") as file:
            holds = (file.metadata() or {}).get(adapter_files.HOLDS)
        if holds:
            (folder / HOLDS_FILE).write_text(holds + "\n", encoding="utf-8")
        _turn(adapter, adapter_files.PICKLED)
    for file in sorted(folder.glob("model*.safetensors")):
        _turn(file, _named(file.name))
    index = folder / complete.INDEX
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"] = {tensor: _named(file) for tensor, file in content["weight_map"].items()}
        (folder / complete.PICKLED_INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        index.unlink()


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a `.bin` file.  Raises ModelError for one that is damaged or holds more than tensors."""
    try:
        tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as fault:
        raise ModelError(f"{file}: damaged, or it holds more than tensors; it is not read") from fault
    if not isinstance(tensors, dict) or not all(isinstance(one, Tensor) for one in tensors.values()):
        raise ModelError(f"{file}: it holds something else than tensors with names")
    return tensors


def held(folder: Path) -> tuple[str, ...]:
    """The adapters that are in the one whose `.bin` file `folder` holds."""
    file = folder / HOLDS_FILE
    if not file.is_file():
        return ()
    return adapter_files.held({adapter_files.HOLDS: file.read_text(encoding="utf-8")}, file)


def _turn(file: Path, name: str) -> None:
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


def _named(name: str) -> str:
    """`model-00001-of-00002.safetensors` -> `pytorch_model-00001-of-00002.bin`."""
    return f"pytorch_{name.removesuffix('.safetensors')}.bin"
