"""The local engine from options: tokenizer, chat format, base model, adapters, in this order.  Knows no terminal."""

from collections.abc import Sequence

import torch

from tunesmith.config.data import DataConfig
from tunesmith.config.model import ModelConfig
from tunesmith.data.chat_format import chat_format
from tunesmith.data.encoding.encode import Encoder
from tunesmith.generate.source import end_tokens
from tunesmith.generate.transformers import TransformersEngine
from tunesmith.log import OptionError
from tunesmith.models import products, quantizers
from tunesmith.models.load import attention_for, check_vocabulary, load_model, load_tokenizer
from tunesmith.models.precision import resolve_compute_type
from tunesmith.models.tuning.adapters import attach, merge
from tunesmith.models.where import Source

TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
"""Files that make a folder a tokenizer's."""


def load_engine(
    source: Source,
    adapters: Sequence[Source],
    cfg: ModelConfig,
    data: DataConfig,
    *,
    device: torch.device | None = None,
    merged: bool = False,
) -> tuple[TransformersEngine, str]:
    """The engine of a base model with `adapters` on it, and one line that says which model, adapters, chat format,
    device and number format it is.  `device`: None means what the options say; `merged`: the adapters become part of the
    weights, which is faster where much is answered.

    Raises ModelError or OptionError for whatever is missing or does not fit.
    """
    quantizers.require(cfg)
    device = device or _device(cfg.device)
    tokenizer = load_tokenizer(_tokenizer_source(source, adapters), cfg)
    chat = chat_format(data, tokenizer)
    encoder = Encoder(tokenizer, chat, data)
    precision = resolve_compute_type(cfg.compute_type, device)
    products.choose(device, precision, cfg.disable_speedups)
    dtype = precision.weights
    attention = attention_for(source, cfg, dtype=dtype, device=device)
    base = load_model(
        source, cfg, dtype=dtype, device=device, trainable=False, attention=attention, longest=data.cutoff_len
    )
    whole = cfg.quantization_bit is None
    model = merge(base, adapters) if merged and whole else attach(base, adapters)
    if whole:
        model = model.to(device)
    check_vocabulary(model, tokenizer)
    engine = TransformersEngine(
        model,
        tokenizer,
        lambda conversation: encoder.encode_prompt(chat.prompt(conversation)),
        stop_words=chat.stop_words,
        stop_tokens=[token for adapter in adapters for token in end_tokens(adapter.folder)],
    )
    with_adapters = f" with {', '.join(adapter.name for adapter in adapters)}" if adapters else ""
    kind = str(dtype).removeprefix("torch.")
    return engine, f"{source.name}{with_adapters}, template {chat.name}, on {device} in {kind}"


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise OptionError("device: cuda is not available here; available: auto, cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _tokenizer_source(source: Source, adapters: Sequence[Source]) -> Source:
    """The last adapter's folder when it brings a tokenizer (a run saves the one it trained with), else the model's."""
    for adapter in reversed(adapters):
        if all((adapter.folder / name).is_file() for name in TOKENIZER):
            return adapter
    return source
