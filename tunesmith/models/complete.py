"""Whether a model's folder is whole, told from its files alone.  Knows file formats; imports no torch.

A broken download should cost a second, not the minutes until its last shard is read.
"""

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

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
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "F16": 16, "BF16": 16,
    "F32": 32, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""What safetensors calls a type -> bits of a number of it."""
LFS = b"version https://git-lfs"
POINTER_BYTES = 1024
READ = (".json", ".jinja", ".safetensors", ".model", "vocab.txt", "merges.txt", PICKLED, "adapter_model.bin")
"""Endings, and whole names, of the files that make a model, a tokenizer or an adapter."""
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Weights:
    """What `check` learned.  `files`: the weights' files; `dtype`: torch's name of the type most of them are stored in,
    None for pickled files; `pickled`: they are `.bin` files."""

    files: tuple[Path, ...]
    dtype: str | None
    pickled: bool
    odd: Mapping[str, str] = field(default_factory=dict)
    """Tensors that are stored as no floating-point numbers, and as what."""
    tensors: int = 0
    numbers: int = 0
    """How many tensors the files hold, and how many numbers in all; 0 for pickled files."""


def check(source: Source, *, scratch: bool = False) -> Weights:
    """Look at config, weights (which nobody reads if `scratch`) and tokenizer files.  Raises ModelError naming the first file
    that is missing, truncated or not what its name says."""
    folder = source.folder
    refuse_no_files(folder)
    _not_an_adapter(folder)
    config = read_config(folder)
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else "unknown"
        raise ModelError(f"{folder}: its weights are quantized ({method}); training on such a base is not built yet")
    weights = Weights((), None, pickled=False) if scratch else _weights(folder)
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        code = [*folder.glob("tokenization*.py"), *folder.glob("*.tiktoken")]
        if not code:
            raise ModelError(f"{folder}: no tokenizer (looked for {', '.join(' + '.join(t) for t in TOKENIZERS)})")
    return weights


def refuse_no_files(folder: Path) -> None:
    """Raise ModelError for what has a name that is read, and is no file, leads nowhere, or stands for the file itself: libraries
    pass over it as if it were not there, or wait for ever."""
    for path in sorted(path for path in folder.iterdir() if path.suffix in READ or path.name in READ):
        if path.is_symlink() and not path.exists():
            raise ModelError(f"{path}: a link that leads nowhere")
        if not path.is_file():
            raise ModelError(f"{path}: it is no file")
        if path.suffix != ".safetensors" and path.stat().st_size < POINTER_BYTES:
            with _opened(path) as file:
                if file.read(len(LFS)) == LFS:
                    raise ModelError(f"{path}: a Git LFS pointer, not the file itself (`git lfs pull` fetches it)")


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as a mapping.  Raises ModelError when it is missing or says no architecture."""
    config = read_json(folder / "config.json")
    if "model_type" not in config and "architectures" not in config:
        raise ModelError(f"{folder / 'config.json'}: neither model_type nor architectures is in it")
    if not isinstance(config.get("model_type", ""), str):
        raise ModelError(f"{folder / 'config.json'}: model_type must be a text, got {config['model_type']!r}")
    return config


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape, offsets; and `__metadata__`.

    Raises ModelError when the file can't be read, is no safetensors file, or shorter or longer than its header says.
    """
    size = path.stat().st_size
    with _opened(path) as file:
        start = file.read(8)
        if (start + file.read(len(LFS))).startswith(LFS):
            raise ModelError(f"{path}: a Git LFS pointer, not the weights themselves (`git lfs pull` fetches them)")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= LONGEST_HEADER:
            raise ModelError(f"{path}: no safetensors file, or damaged at its start")
        file.seek(8)
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            end = _end_of(header)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ModelError(f"{path}: truncated or damaged: its header cannot be read") from None
    if size != 8 + length + end:
        word = "truncated" if size < 8 + length + end else "damaged"
        raise ModelError(f"{path}: {word}: it has {size:,} bytes, its header promises {8 + length + end:,}")
    return header


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as fault:
        raise ModelError(f"{path}: cannot be read: {fault.strerror}") from None


def _end_of(header: dict[str, Any]) -> int:
    """Bytes that follow a header.  Raises ValueError or TypeError for one whose tensors do not lie behind one another, or
    that are not as large as their shapes."""
    places = []
    for name, entry in header.items():
        if name != "__metadata__":
            (start, end), shape = entry["data_offsets"], entry["shape"]
            if not all(type(size) is int and size >= 0 for size in (start, end, *shape)):
                raise ValueError(f"{name} has an impossible place or shape")
            if math.prod(shape) * BITS[entry["dtype"]] != 8 * (end - start):
                raise ValueError(f"{name} is not as large as its shape")
            places.append((start, end))
    at = 0
    for start, end in sorted(places):
        if start != at:
            raise ValueError("tensors overlap, or leave a hole")
        at = end
    return at


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
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: it names no weights")
    if odd := [name for name in weight_map.values() if not _is_file_name(name)]:
        raise ModelError(f"{index}: {odd[0]!r} is no file's name in this folder")
    missing = sorted(name for name in set(weight_map.values()) if not (index.parent / name).is_file())
    if missing:
        raise ModelError(f"{index.parent}: missing {', '.join(missing)}, which {index.name} names")
    return {tensor: index.parent / name for tensor, name in weight_map.items()}


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name and name not in ("", "..") and "\0" not in name


def _safetensors(files: list[Path], where: dict[str, Path] | None = None) -> Weights:
    headers = {path: read_header(path) for path in files}
    for tensor, path in (where or {}).items():
        if tensor not in headers[path]:
            raise ModelError(f"{path}: it lacks the tensor {tensor}, which the index promises")
    if where is not None:
        for path, header in headers.items():
            if unnamed := sorted(header.keys() - {"__metadata__"} - where.keys()):
                raise ModelError(f"{path}: {INDEX} does not name its tensor {unnamed[0]}, which would be left out")
    held: dict[str, dict[str, Any]] = {}
    bytes_of: dict[str, int] = {}
    for path, header in headers.items():
        for name, entry in header.items():
            if name != "__metadata__":
                if name in held:
                    raise ModelError(f"{path}: it holds the tensor {name}, which another file holds, too")
                held[name] = entry
                start, end = entry["data_offsets"]
                bytes_of[entry["dtype"]] = bytes_of.get(entry["dtype"], 0) + end - start
    if not bytes_of:
        raise ModelError(f"{files[0]}: it holds no tensors")
    return Weights(
        tuple(files),
        DTYPES.get(max(bytes_of, key=bytes_of.__getitem__)),
        pickled=False,
        odd={name: entry["dtype"] for name, entry in held.items() if entry["dtype"] not in DTYPES},
        tensors=len(held),
        numbers=sum(math.prod(entry["shape"]) for entry in held.values()),
    )


def _pickled(files: list[Path]) -> Weights:
    for path in files:
        if not zipfile.is_zipfile(path):
            raise ModelError(f"{path}: truncated, damaged, or in torch's format of before 2020")
    return Weights(tuple(files), None, pickled=True)


def _not_an_adapter(folder: Path) -> None:
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return
    base = read_json(adapter).get("base_model_name_or_path")
    if (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds both a model (config.json) and an adapter ({adapter.name}); move one away")
    raise ModelError(
        f"model_name_or_path: {folder} holds an adapter, not a model: write model_name_or_path={base} and "
        f"adapter_name_or_path={folder}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.  Raises ModelError for anything else."""
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: it is no file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent}: no {path.name}, so this is no model folder") from None
    except OSError as fault:
        raise ModelError(f"{path}: cannot be read: {fault.strerror}") from None
    except RecursionError:
        raise ModelError(f"{path}: not valid JSON: it is nested too deeply") from None
    except ValueError as fault:
        raise ModelError(f"{path}: not valid JSON: {str(fault).split(';')[0]}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: a JSON object is expected, found {type(content).__name__}")
    return content
