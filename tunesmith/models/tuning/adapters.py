"""Reads adapter folders: checks that each fits the model, merges it, or puts it on to be trained or used."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith import log
from tunesmith.log import ModelError
from tunesmith.models import pickled, quantized, structure, vocabulary
from tunesmith.models.adapter_files import CONFIG, PICKLED, WEIGHTS, check, compare_bases, held, refuse_twice
from tunesmith.models.recompute import need_no_gradients_of_inputs
from tunesmith.models.tuning.carried import Factors, factors_of, joined
from tunesmith.models.weights import check_finite, quiet, reason
from tunesmith.models.where import Source


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as read from its folder.  `holds`: names of other adapters that are already in it."""

    source: Source
    config: LoraConfig
    tensors: dict[str, Tensor]
    holds: tuple[str, ...]


def read(source: Source) -> Adapter:
    """Raises ModelError when the folder holds no whole LoRA adapter, or values that are not finite."""
    folder = source.folder
    check(folder)
    try:
        config = PeftConfig.from_pretrained(folder)
    except (ValueError, TypeError, KeyError) as fault:
        raise ModelError(f"{folder / CONFIG}: not readable: {fault}") from fault
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{folder / CONFIG}: an adapter of type {config.peft_type}; only LoRA is built")
    if (folder / WEIGHTS).is_file():
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            holds = held(file.metadata() or {}, folder / WEIGHTS)
        tensors = load_file(folder / WEIGHTS)
    else:
        log.note(str(folder), "its weights are a pickled .bin file; it is read without running what it holds")
        holds, tensors = pickled.held(folder), pickled.read(folder / PICKLED)
    if odd := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        raise ModelError(f"{folder}: {odd[0]} is stored as {tensors[odd[0]].dtype}, no floating-point numbers")
    check_finite(((name, tensor.float()) for name, tensor in tensors.items()), str(folder))
    if config.r > (largest := max((size for tensor in tensors.values() for size in tensor.shape), default=0)):
        raise ModelError(f"{folder / CONFIG}: r is {config.r}, and no tensor of {folder} is larger than {largest}")
    return Adapter(source, config, tensors, holds)


def read_all(sources: Sequence[Source]) -> list[Adapter]:
    """Read several, to be put one onto another.  Raises ModelError when one already holds another of them."""
    adapters = [read(source) for source in sources]
    refuse_twice([(adapter.source.name, adapter.holds) for adapter in adapters])
    return adapters


def put_on(model: PreTrainedModel, adapter: Adapter, *, trained: bool, keep_dtype: bool = False) -> PeftModel:
    """The model with this adapter, its weights in fp32 (with `keep_dtype`, in the base's format).

    Raises ModelError naming the first module or tensor that does not fit the model.
    """
    where, config = adapter.source.folder, adapter.config
    compare_bases(where, config.base_model_name_or_path, model.name_or_path)
    vocabulary.reach(model, _rows_needed(adapter, model))
    follows = [f"{name}.token_adapter." for name in structure.tied_names(model)[1:]]
    """What is one weight with the embeddings, whose new rows it has."""
    config.base_model_name_or_path = None
    config.inference_mode = not trained
    try:
        with quiet():
            wrapped = get_peft_model(model, config, autocast_adapter_dtype=not keep_dtype)
            need_no_gradients_of_inputs(model)
            result = set_peft_model_state_dict(wrapped, adapter.tensors)
    except Exception as fault:  # peft fails in many ways over a config that does not suit the model
        raise ModelError(f"{where}: the adapter does not fit {model.name_or_path}: {reason(fault)}") from fault
    marks = (".lora_", ".modules_to_save.", ".trainable_tokens_delta")
    needed = [name for name in result.missing_keys if not any(one in name for one in follows)]
    missing = sorted(name for name in needed if any(mark in name for mark in marks))
    for names, what in ((missing, "lacks"), (sorted(result.unexpected_keys), "has no place for")):
        if names:
            subject = str(where) if what == "lacks" else f"{model.name_or_path}"
            raise ModelError(
                f"{where}: the adapter does not fit: {subject} {what} {len(names)} tensors: {names[0]}, ..."
            )
    return wrapped


def _rows_needed(adapter: Adapter, model: PreTrainedModel) -> int:
    """How many rows the model must have for the adapter, which may hold rows of tokens that the model does not know yet."""
    indices = adapter.config.trainable_token_indices or []
    wanted = [*itertools.chain(*indices.values())] if isinstance(indices, dict) else list(indices)
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    whole = [len(tensor) for key, tensor in adapter.tensors.items() if key.endswith(f"{name}.weight")]
    return max((*(one + 1 for one in wanted), *whole), default=0)


def merge(model: PreTrainedModel, sources: Sequence[Source]) -> PreTrainedModel:
    """The model with all these adapters merged into its weights, in this order."""
    return merge_keeping(model, read_all(sources), strict=False)[0]


def merge_keeping(
    model: PreTrainedModel, adapters: Sequence[Adapter], *, strict: bool
) -> tuple[PreTrainedModel, Factors]:
    """Merge, and return also what it changed, as low-rank factors.

    With `strict`, raises ModelError for an adapter whose change is not low-rank (DoRA, modules trained in full), for then
    no adapter trained on top of it would load on the base model.
    """
    if adapters and quantized.is_quantized(model):
        raise ModelError("adapter_name_or_path: adapters cannot be merged into weights of few bits (quantization_bit)")
    changed: Factors = {}
    for adapter in adapters:
        extras = [
            name
            for name in ("use_dora", "modules_to_save", "trainable_token_indices")
            if adapter.config.to_dict()[name]
        ]
        if strict and extras:
            raise ModelError(
                f"{adapter.source.folder}: an adapter with {' and '.join(extras)} cannot be under another one; merge it "
                "into a model of its own first"
            )
        _check_ties(model, adapter)
        wrapped = put_on(model, adapter, trained=False)
        changed = joined(changed, factors_of(wrapped))
        try:
            model = wrapped.merge_and_unload(safe_merge=True)
        except ValueError as fault:
            raise ModelError(f"{adapter.source.folder}: the adapter cannot be merged: {fault}") from fault
    return model, changed


def attach(model: PreTrainedModel, sources: Sequence[Source]) -> PreTrainedModel | PeftModel:
    """The model as it is to be used, not trained: all adapters but the last merged, the last one put on."""
    adapters = read_all(sources)
    if not adapters:
        return model
    merged, _ = merge_keeping(model, adapters[:-1], strict=False)
    return put_on(merged, adapters[-1], trained=False).eval()


def _check_ties(model: PreTrainedModel, adapter: Adapter) -> None:
    """Raise ModelError when merging would give two weights different values that are one weight in the model."""
    tied, config = structure.tied_names(model), adapter.config
    parting = [] if config.ensure_weight_tying else structure.named_by(config.modules_to_save or (), tied)
    if isinstance(config.target_modules, set):
        parting += structure.named_by(config.target_modules, tied)
    if parting:
        raise ModelError(
            f"{adapter.source.folder}: it cannot be merged: it changes {parting[0]} alone, which is one weight with "
            f"{', '.join(name for name in tied if name != parting[0])} in {model.name_or_path}"
        )
