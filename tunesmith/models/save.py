"""Writes a trained model so that other programs read it, and keeps its exact trained weights for going on.

Two different things: what is published has the base model's format and stands alone; what a checkpoint needs is every
trained weight in the precision it is trained in.  Knows folders and formats; knows nothing of runs: the caller gives an
empty folder and makes it visible when it is whole.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from tunesmith import log
from tunesmith.log import RunError
from tunesmith.models import pickled
from tunesmith.models.adapter_files import HOLDS, WEIGHTS
from tunesmith.models.tuning.carried import ADAPTER, with_carried
from tunesmith.models.weights import first_not_finite, quiet

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""How a model's config names a type -> the type."""
SHARD_BYTES = 50_000_000_000
"""Most bytes of one file of a full model, unless said otherwise."""


def save_weights(
    model: PreTrainedModel | PeftModel, folder: Path, *, most_bytes: int = SHARD_BYTES, bins: bool = False
) -> None:
    """Write the adapter as peft reads it, or the whole model as Transformers reads it, in the type that the base model
    has on disk, in files of at most `most_bytes`; with `bins` as `.bin` files.  Raises RunError naming the first tensor
    that is not finite, before anything is written."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        _save_adapter(model, folder)
    else:
        _save_full(model, folder, most_bytes)
    if bins:
        pickled.instead_of_safetensors(folder)


def save_final(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    chat_template: str | dict[str, str] | None,
    stop_token_ids: Sequence[int],
    bins: bool = False,
) -> None:
    """Write weights, tokenizer, chat template and `generation_config.json`: all that is needed to talk to the model.

    `chat_template`: Jinja, several by name, None for the tokenizer's own; `stop_token_ids`: tokens that end a turn, to
    which the model's own end tokens are added; `bins` as in `save_weights`.
    """
    save_weights(model, folder, bins=bins)
    _save_generation_config(model, folder, stop_token_ids)
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = chat_template or own
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = own


def save_trained_exact(model: nn.Module) -> dict[str, Tensor]:
    """Every trained weight by name, as it is: the model's own tensors, not copies.  A tied weight appears once."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def restore_trained_exact(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `save_trained_exact` gave, bit for bit.  Raises RunError when a name, shape or type differs."""
    current = save_trained_exact(model)
    for names, what in ((current.keys() - tensors.keys(), "lacks"), (tensors.keys() - current.keys(), "has besides")):
        if names:
            raise RunError(f"the checkpoint trains other weights than this run: it {what} {min(names)}")
    for name, weight in current.items():
        saved = tensors[name]
        if (saved.shape, saved.dtype) != (weight.shape, weight.dtype):
            raise RunError(
                f"the checkpoint's {name} is {saved.dtype} {list(saved.shape)}, this run's {weight.dtype} {list(weight.shape)}"
            )
    with torch.no_grad():
        for name, weight in current.items():
            weight.copy_(tensors[name])


def load_trained(model: nn.Module, file: Path) -> None:
    """`restore_trained_exact` from a safetensors file."""
    restore_trained_exact(model, load_file(file))


def _save_adapter(model: PeftModel, folder: Path) -> None:
    # save_embedding_layers: an embedding with LoRA keeps its base weights, which the base model has on disk.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    config, state, holds = with_carried(model, model.peft_config[ADAPTER], state)
    _refuse_not_finite(state)
    config = copy.deepcopy(config)
    config.inference_mode = True
    config.base_model_name_or_path = model.get_base_model().name_or_path
    config.save_pretrained(folder)
    metadata = {"format": "pt"} | ({HOLDS: json.dumps(holds)} if holds else {})
    save_file(_separate(state), folder / WEIGHTS, metadata=metadata)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them: copies of all but the first that do."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        shared = tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        apart[name] = tensor.detach().contiguous().clone() if shared else tensor.detach().contiguous()
    return apart


def _save_full(model: PreTrainedModel, folder: Path, most_bytes: int) -> None:
    stored = model.config.dtype
    dtype = TYPES.get(str(stored).removeprefix("torch."), model.dtype)
    kept = model._keep_in_fp32_modules_strict or ()
    cast: dict[tuple[int, torch.Size], Tensor] = {}  # so that tied weights stay one, and are written once
    state = {
        name: cast.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(dtype))
        if tensor.is_floating_point() and tensor.numel() and not _kept(name, kept)
        else tensor
        for name, tensor in model.state_dict().items()
    }
    _refuse_not_finite(state)
    model.generation_config = _valid(model.generation_config)
    with quiet():
        model.save_pretrained(folder, state_dict=state, max_shard_size=most_bytes)
    # save_pretrained wrote the type and the missing cache of training into the config.
    model.config.dtype = stored
    published = copy.deepcopy(model.config)
    published.use_cache = True
    published.save_pretrained(folder)


def _kept(name: str, kept: Sequence[str]) -> bool:
    return any(part in name.split(".") for part in kept)


def _save_generation_config(model: PreTrainedModel | PeftModel, folder: Path, stop_token_ids: Sequence[int]) -> None:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    config = copy.deepcopy(base.generation_config)
    own = config.eos_token_id if config.eos_token_id is not None else []
    stops = [*stop_token_ids, *(own if isinstance(own, list) else [own])]
    config.eos_token_id = list(dict.fromkeys(stops)) or None
    _valid(config).save_pretrained(folder)


def _valid(config: GenerationConfig) -> GenerationConfig:
    """A config that can be written.  Some published ones give a temperature and forget to switch sampling on: they can
    be read, and training must not fail at its very end over them."""
    sampling = copy.deepcopy(config)
    sampling.do_sample = True
    for candidate in (config, sampling):
        try:
            candidate.validate(strict=True)
        except ValueError:
            continue
        return candidate
    log.warn("generation_config.json", "the base model's own is not valid; only its special tokens are kept")
    return GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )


def _refuse_not_finite(state: Mapping[str, Tensor]) -> None:
    name = first_not_finite(state.items())
    if name is not None:
        raise RunError(f"the weight {name} is not finite; nothing was written")
