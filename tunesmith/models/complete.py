"""Whether a model's folder is whole, told from its files alone.  Knows file formats; imports no torch.

A broken download should cost a second, not the minutes until its last shard is read.
"""

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.log import ModelError
from tunesmith.models.where import Source

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED = "pytorch_model.bin"
TOKENIZERS: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.txt",),
    ("tekken.json",),
)
"""Sets of files, each of which makes a tokenizer."""
DTYPES = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What safetensors calls a type -> what torch calls the one in which such weights are held and saved."""
LFS = b"version https://git-lfs"
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Weights:
    """What `check` learned.  `files`: the weights' files; `dtype`: torch's name of the type most of them are stored in,
    None for pickled files; `pickled`: they are `.bin` files."""

    files: tuple[Path, ...]
    dtype: str | None
    pickled: bool


def check(source: Source) -> Weights:
    """Look at config, weights and tokenizer files.  Raises ModelError naming the first file that is missing, truncated
    or not what its name says."""
    folder = source.folder
    _not_an_adapter(folder)
    config = read_config(folder)
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ModelError(f"{folder}: its weights are quantized ({method}); training on such a base is not built yet")
    weights = _weights(folder)
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        code = [*folder.glob("tokenization*.py"), *folder.glob("*.tiktoken")]
        if not code:
            raise ModelError(f"{folder}: no tokenizer (looked for {', '.join(' + '.join(t) for t in TOKENIZERS)})")
    return weights


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as a mapping.  Raises ModelError when it is missing or says no architecture."""
    config = _read_json(folder / "config.json")
    if "model_type" not in config and "architectures" not in config:
        raise ModelError(f"{folder / 'config.json'}: neither model_type nor architectures is in it")
    return config


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape, offsets; and `__metadata__`.

    Raises ModelError when the file is no safetensors file, or shorter or longer than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if (start + file.read(len(LFS))).startswith(LFS):
            raise ModelError(f"{path}: a Git LFS pointer, not the weights themselves (`git lfs pull` fetches them)")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= LONGEST_HEADER:
            raise ModelError(f"{path}: no safetensors file, or damaged at its start")
        file.seek(8)
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ModelError(f"{path}: truncated or damaged: its header cannot be read") from None
    if size != 8 + length + end:
        word = "truncated" if size < 8 + length + end else "damaged"
        raise ModelError(f"{path}: {word}: it has {size:,} bytes, its header promises {8 + length + end:,}")
    return header


def _weights(folder: Path) -> Weights:
    if (folder / SINGLE).is_file():
        return _safetensors([folder / SINGLE])
    if (folder / INDEX).is_file():
        where = _shards(folder / INDEX)
        return _safetensors(sorted(set(where.values())), where)
    if (folder / PICKLED).is_file():
        return _pickled([folder / PICKLED])
    if (folder / PICKLED_INDEX).is_file():
        return _pickled(sorted(set(_shards(folder / PICKLED_INDEX).values())))
    loose = sorted(path.name for path in folder.glob("*.safetensors"))
    hint = f"; {', '.join(loose[:3])} lack their {INDEX}" if loose else ""
    raise ModelError(f"{folder}: no weights (looked for {SINGLE}, {INDEX}, {PICKLED}, {PICKLED_INDEX}){hint}")


def _shards(index: Path) -> dict[str, Path]:
    """Tensor -> file, once every file that the index names is there."""
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: it names no weights")
    missing = sorted(name for name in set(weight_map.values()) if not (index.parent / name).is_file())
    if missing:
        raise ModelError(f"{index.parent}: missing {', '.join(missing)}, which {index.name} names")
    return {tensor: index.parent / name for tensor, name in weight_map.items()}


def _safetensors(files: list[Path], where: dict[str, Path] | None = None) -> Weights:
    headers = {path: read_header(path) for path in files}
    for tensor, path in (where or {}).items():
        if tensor not in headers[path]:
            raise ModelError(f"{path}: it lacks the tensor {tensor}, which the index promises")
    bytes_of: dict[str, int] = {}
    for header in headers.values():
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                bytes_of[entry["dtype"]] = bytes_of.get(entry["dtype"], 0) + end - start
    if not bytes_of:
        raise ModelError(f"{files[0]}: it holds no tensors")
    return Weights(tuple(files), DTYPES.get(max(bytes_of, key=bytes_of.__getitem__)), pickled=False)


def _pickled(files: list[Path]) -> Weights:
    for path in files:
        if not zipfile.is_zipfile(path):
            raise ModelError(f"{path}: truncated, damaged, or in torch's format of before 2020")
    return Weights(tuple(files), None, pickled=True)


def _not_an_adapter(folder: Path) -> None:
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return
    base = _read_json(adapter).get("base_model_name_or_path")
    if (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds both a model (config.json) and an adapter ({adapter.name}); move one away")
    raise ModelError(
        f"model_name_or_path: {folder} holds an adapter, not a model: write model_name_or_path={base} and "
        f"adapter_name_or_path={folder}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent}: no {path.name}, so this is no model folder") from None
    except ValueError as fault:
        raise ModelError(f"{path}: not valid JSON: {fault}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: a JSON object is expected, found {type(content).__name__}")
    return content
