"""The order in which a base model is brought in: find it, check its files, read its tokenizer, read its weights.

`find` and `check` work before torch is imported (from `where` and `complete`); this file tells what comes after.
"""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith import log, shortage
from tunesmith.config.model import ModelConfig
from tunesmith.log import OutOfMemory
from tunesmith.models import architecture, complete, dropout, plausible, positions, quantized
from tunesmith.models.attention import choose_attention
from tunesmith.models.complete import check
from tunesmith.models.recompute import ASKED, Way, recompute
from tunesmith.models.tokenizer import check_vocabulary, load_tokenizer
from tunesmith.models.weights import check_finite, check_stored, random_weights, read_weights
from tunesmith.models.where import Source, find, find_adapters

__all__ = [
    "Source",
    "attention_for",
    "check",
    "check_vocabulary",
    "find",
    "find_adapters",
    "load_model",
    "load_tokenizer",
]


def attention_for(source: Source, cfg: ModelConfig, *, dtype: torch.dtype, device: torch.device) -> str:
    """Transformers' name of the attention that `flash_attn` means for this model, computing in `dtype` on `device`."""
    _, model_class = architecture.read(source, cfg)
    return choose_attention(cfg.flash_attn, model_class, device, dtype)


def load_model(
    source: Source,
    cfg: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    trainable: bool,
    attention: str,
    longest: int | None = None,
    scratch: bool = False,
) -> PreTrainedModel:
    """The base model on `device`, its weights in `dtype`, every tensor loaded and finite.

    `trainable`: in training mode, with no key-value cache and with gradient checkpointing when asked for (what `auto` means
    is found later); otherwise in evaluation mode.  `attention` is what `attention_for` said.  `model.config.dtype` remembers the type on disk, in which
    a fully tuned model is saved.  `longest`: tokens of the longest rows, to which `rope_scaling` stretches positions (None: they
    stay as they are on disk).  `scratch`: weights are drawn from torch's generator, which the caller seeds, not read.  Raises ModelError for anything missing, unexpected, misshapen or not finite.
    """
    config = _config(source, cfg, longest, trainable)
    trusted = bool(architecture.code_that_runs(source, cfg))
    if scratch:
        model, stored = random_weights(config, dtype=dtype, device=device, attention=attention, trusted=trusted), None
        log.note("train_from_scratch", f"{model.num_parameters():,} weights of {source.folder} begin at random")
    else:
        model, stored = _read(source, cfg, config, dtype=dtype, device=device, attention=attention, trusted=trusted)
    model.name_or_path = model.config.name_or_path = source.name
    model.config.dtype = stored or config.dtype or dtype
    quantized.settle(model, cfg, dtype)
    if cfg.rope_scaling == "dynamic":
        positions.forget_lengths(model)
    if cfg.dropout_rate is not None and trainable:
        dropout.set_all(model, cfg.dropout_rate)
    if trainable:
        prepare_for_training(model, recomputed=ASKED.get(cfg.gradient_checkpointing))
    return model


def _read(
    source: Source,
    cfg: ModelConfig,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    trusted: bool,
) -> tuple[PreTrainedModel, str | None]:
    """The model with the weights that lie in its folder, and the type in which most of them do."""
    files = complete.check(source)
    if files.pickled:
        log.note(str(source.folder), "its weights are pickled .bin files; they are read without running what they hold")
    plausible.check(config, files, source.folder / "config.json")
    try:
        model = read_weights(
            source,
            config,
            dtype=dtype,
            device=device,
            attention=attention,
            trusted=trusted,
            quantization=quantized.for_reading(cfg, dtype),
        )
    except Exception as problem:
        if (found := shortage.found(problem)) is None:
            raise
        held = sum(path.stat().st_size for path in files.files)
        kind = str(dtype).removeprefix("torch.")
        raise OutOfMemory(
            f"out of memory while {source.folder} was loaded in {kind}, of which its files hold {held:,} bytes; "
            f"compute_type: pure_bf16, where it is not that, or a smaller model takes less ({found})"
        ) from problem
    check_stored(model, files.odd, str(source.folder))
    check_finite(model.named_parameters(), f"{source.folder} read as {str(dtype).removeprefix('torch.')}")
    return model, files.dtype


def _config(source: Source, cfg: ModelConfig, longest: int | None, trainable: bool) -> PreTrainedConfig:
    """The model's configuration, as options change it."""
    config, _ = architecture.read(source, cfg)
    if cfg.rope_scaling is not None and longest is not None:
        positions.stretch(config, cfg.rope_scaling, longest, tell=trainable)
    if cfg.dropout_rate is not None and trainable:
        dropout.announce(config, cfg.dropout_rate)
    return config


def prepare_for_training(model: PreTrainedModel, *, recomputed: Way | None) -> None:
    """Switch to training mode without a key-value cache; with `recomputed`, make layers' activations again going back."""
    model.train()
    model.config.use_cache = False
    if recomputed is not None:
        recompute(model, recomputed)
