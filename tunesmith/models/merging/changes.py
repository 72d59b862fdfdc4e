"""What a LoRA adapter's folder changes in a model's files: tensor by tensor, without building the model.

It works where an adapter's names are those of the files, which holds for all but few architectures: a linear layer that
is called the same and has the same shape in the files is the same layer.  (Transformers renames, joins and splits tensors
of some architectures when it loads them; the only ones that it changes under the same name are experts, held in three
dimensions.)  What this file does not understand it refuses with `InMemoryOnly`: peft merges that, in memory.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.log import ModelError
from tunesmith.models.adapter_files import CONFIG, WEIGHTS, compare_bases, held, read_config, refuse_twice
from tunesmith.models.complete import DTYPES, read_header
from tunesmith.models.merging.stored import Stored, of_files
from tunesmith.models.where import Source

PREFIX = "base_model.model."
"""What peft puts before a module's name."""

FACTORS = re.compile(r"(?P<module>.+)\.(?P<kind>lora_A|lora_B|lora_magnitude_vector|lora_embedding_A|lora_embedding_B)")
COMPUTED = ("BF16", "F16", "F32")

UNDERSTOOD = {
    "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out",
    "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern", "peft_type",
    "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
    "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core",
    "qalora_group_size", "bias", "ensure_weight_tying",
}  # fmt: skip
"""Settings of an adapter that are read here, or that only its training needed."""

HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal")
"""Starts of training that left the base model as it was."""


class InMemoryOnly(Exception):
    """The adapter is beyond this file; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """W + scale * B A, or with `transposed` W + scale * (B A)^T; then, with `magnitude`, DoRA's column norms."""

    first: Stored
    second: Stored
    scale: float
    transposed: bool
    magnitude: Stored | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another tensor in its place."""

    by: Stored


Change = LowRank | Replaced


@dataclass(frozen=True, slots=True)
class _Adapter:
    """An adapter's folder: its settings, its tensors, and the names of adapters that are in it."""

    source: Source
    config: dict[str, Any]
    tensors: dict[str, Stored]
    holds: tuple[str, ...]


def of_adapters(sources: Sequence[Source], base: str, model: Mapping[str, Stored]) -> dict[str, list[Change]]:
    """Tensor -> what the adapters do to it, in their order.  `base`: the model's name; `model`: its tensors.

    Raises InMemoryOnly for what is not understood here, ModelError for an adapter that is damaged or does not fit."""
    adapters = [_read(source) for source in sources]
    refuse_twice([(adapter.source.name, adapter.holds) for adapter in adapters])
    changes: dict[str, list[Change]] = {}
    for adapter in adapters:
        compare_bases(adapter.source.folder, adapter.config.get("base_model_name_or_path"), base)
        for name, change in _changes(adapter, model).items():
            changes.setdefault(name, []).append(change)
    return changes


def _read(source: Source) -> _Adapter:
    folder = source.folder
    if not (folder / CONFIG).is_file():
        raise ModelError(f"adapter_name_or_path: {folder} holds no adapter (no {CONFIG})")
    if not (folder / WEIGHTS).is_file():
        raise InMemoryOnly(f"{folder} has no {WEIGHTS}")
    config = read_config(folder)
    if strange := [name for name, value in config.items() if value and name not in UNDERSTOOD]:
        raise InMemoryOnly(f"{folder / CONFIG} sets {strange[0]}")
    if config.get("bias", "none") != "none" or config.get("init_lora_weights") not in HARMLESS_STARTS:
        raise InMemoryOnly(f"{folder / CONFIG} has a bias, or a start that changed the base model")
    header = read_header(folder / WEIGHTS)
    if odd := [name for name, entry in header.items() if name != "__metadata__" and entry["dtype"] not in DTYPES]:
        raise ModelError(
            f"{folder / WEIGHTS}: {odd[0]} is stored as {header[odd[0]]['dtype']}, no floating-point numbers"
        )
    holds = held(header.get("__metadata__", {}), folder / WEIGHTS)
    return _Adapter(source, config, of_files([folder / WEIGHTS]), holds)


def _changes(adapter: _Adapter, model: Mapping[str, Stored]) -> dict[str, Change]:
    factors: dict[str, dict[str, Stored]] = {}
    changes: dict[str, Change] = {}
    for key, tensor in adapter.tensors.items():
        name = key.removeprefix(PREFIX)
        found = FACTORS.fullmatch(name.removesuffix(".weight"))
        if found:
            factors.setdefault(found["module"], {})[found["kind"]] = tensor
        elif _saved_whole(name, adapter.config):
            base = _base(name, model)
            if len(base.shape) == 2 and base.shape[1:] == tensor.shape[1:] and base.rows < tensor.rows:
                raise InMemoryOnly(f"{adapter.source.folder} holds rows of new tokens")
            _compare_shapes(adapter, name, base.shape, tensor.shape)
            changes[name] = Replaced(tensor)
        else:
            raise InMemoryOnly(f"{adapter.source.folder} holds {key}")
    _refuse_missing(adapter, factors, model)
    turned = bool(adapter.config.get("fan_in_fan_out"))
    for module, parts in factors.items():
        changes[f"{module}.weight"] = _low_rank(adapter, module, parts, _base(f"{module}.weight", model), turned)
    return changes


def _low_rank(adapter: _Adapter, module: str, parts: Mapping[str, Stored], base: Stored, turned: bool) -> LowRank:
    """`turned`: the adapter's word that linear layers hold their matrices transposed, as GPT-2's do."""
    embeds = "lora_embedding_A" in parts
    kinds = ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A", "lora_B")
    if missing := [kind for kind in kinds if kind not in parts]:
        raise ModelError(f"{adapter.source.folder}: damaged: it lacks {module}.{missing[0]}")
    first, second, magnitude = parts[kinds[0]], parts[kinds[1]], parts.get("lora_magnitude_vector")
    rank, scale = _scale(adapter.config, module)
    if any(len(shape) != 2 for shape in (base.shape, first.shape, second.shape)) or (rank, rank) != (
        first.shape[0],
        second.shape[1],
    ):
        raise InMemoryOnly(f"{adapter.source.folder} has another rank or form than its settings say at {module}")
    change = (second.shape[0], first.shape[1])
    straight, across = change == base.shape, change[::-1] == base.shape
    if embeds or (across and not straight):
        fits, transposed = across, True
    else:
        fits, transposed = straight, turned and across
    if not fits:
        _compare_shapes(adapter, f"{module}.weight", base.shape, change)
    if transposed != turned and not embeds:
        raise InMemoryOnly(f"{module} is stored across, or not, against the settings of {adapter.source.folder}")
    if bool(adapter.config.get("use_dora")) != (magnitude is not None):
        raise ModelError(f"{adapter.source.folder}: damaged: use_dora and the magnitude of {module} do not agree")
    return LowRank(first, second, scale, transposed, magnitude)


def _scale(config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Rank and scale of a module's change, with peft's meaning of `rank_pattern` and `alpha_pattern`."""
    rank = _of_pattern(config.get("rank_pattern") or {}, module, config["r"])
    alpha = _of_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(pattern: Mapping[str, int], module: str, usual: int) -> int:
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), usual)


def _base(name: str, model: Mapping[str, Stored]) -> Stored:
    if name not in model:
        raise InMemoryOnly(f"the files hold no {name}")
    if model[name].dtype not in COMPUTED:
        raise InMemoryOnly(f"the files hold {name} as {model[name].dtype}")
    return model[name]


def _saved_whole(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor belongs to one of `modules_to_save`, which peft takes for endings of names, of parts of words too."""
    return any(re.match(rf".*{re.escape(module)}\.", name) for module in config.get("modules_to_save") or ())


def _compare_shapes(adapter: _Adapter, name: str, base: Sequence[int], change: Sequence[int]) -> None:
    if tuple(base) != tuple(change):
        raise ModelError(
            f"{adapter.source.folder}: the adapter does not fit: it changes {list(change)} numbers of {name}, which has "
            f"{list(base)}"
        )


def _refuse_missing(adapter: _Adapter, factors: Mapping[str, object], model: Mapping[str, Stored]) -> None:
    """Raise ModelError for an adapter that lacks matrices of a layer that its settings name."""
    targets, config = adapter.config.get("target_modules") or (), adapter.config
    if config.get("exclude_modules") or config.get("layers_to_transform") or targets == "all-linear":
        return
    for name, tensor in model.items():
        module = name.removesuffix(".weight")
        if module == name or len(tensor.shape) != 2 or module in factors or _saved_whole(name, config):
            continue
        if isinstance(targets, str):
            named = re.fullmatch(targets, module) is not None
        else:
            named = any(module == target or module.endswith(f".{target}") for target in targets)
        if named:
            raise ModelError(f"{adapter.source.folder}: the adapter does not fit: it lacks {module}.lora_A, ...")
