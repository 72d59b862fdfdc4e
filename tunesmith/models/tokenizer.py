"""Reads a model's tokenizer, and makes sure that it fits the model.  Knows no chat format."""

import json
from pathlib import Path
from typing import Any

from tokenizers.models import BPE
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, TokenizersBackend

from tunesmith import log
from tunesmith.config.model import ModelConfig
from tunesmith.log import ModelError
from tunesmith.models import new_tokens
from tunesmith.models.architecture import code_that_runs, read
from tunesmith.models.where import Source

SPLITTING = ("normalizer", "pre_tokenizer")
"""Steps of `tokenizer.json` that decide where words are cut before the vocabulary is looked up."""


def load_tokenizer(source: Source, cfg: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's or an adapter's folder, with a pad token that changes nothing: its own, else its end token (attention masks
    hide padding), else the token of id 0.  Tokens are added that options ask for.  Raises ModelError when there is none to read."""
    is_model = (source.folder / "config.json").is_file()  # an adapter's folder brings a tokenizer, and never code
    if is_model:
        read(source, cfg)  # first: an error about config.json would seem to be the tokenizer's, which reads it too
    trusted = is_model and bool(code_that_runs(source, cfg))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=trusted, use_fast=cfg.use_fast_tokenizer
        )
        if not trusted and not _as_written(tokenizer, source.folder / "tokenizer.json"):
            log.note(
                "tokenizer", f"read as tokenizer.json says, which {type(tokenizer).__name__} would split otherwise"
            )
            tokenizer = TokenizersBackend.from_pretrained(source.folder, local_files_only=True)
    except Exception as failure:  # the Rust tokenizer raises bare Exceptions for a damaged file
        raise ModelError(f"{source.folder}: its tokenizer cannot be read: {failure}") from failure
    if len(tokenizer) == 0 or (tokenizer.is_fast and not tokenizer.backend_tokenizer.get_vocab_size(False)):
        raise ModelError(f"{source.folder}: its tokenizer has no tokens")
    if type(tokenizer.model_max_length) not in (int, float):
        raise ModelError(
            f"{source.folder / 'tokenizer_config.json'}: model_max_length must be a number, got {tokenizer.model_max_length!r}"
        )
    _always_alike(tokenizer)
    new_tokens.add(tokenizer, cfg)
    if not tokenizer.is_fast:
        log.warn("tokenizer", f"{source.folder} gives only a slow tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        log.note("tokenizer", f"it has no pad token; {tokenizer.pad_token!r} fills up rows, hidden from the model")
    return tokenizer


def _always_alike(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have one text give the same tokens each time: a vocabulary whose file asks for it joins pieces at random."""
    if tokenizer.is_fast and isinstance(model := tokenizer.backend_tokenizer.model, BPE) and model.dropout:
        log.note("tokenizer", f"its dropout of {model.dropout:g} is left out: tokens would be others in each run")
        model.dropout = None


def _as_written(tokenizer: PreTrainedTokenizerBase, file: Path) -> bool:
    """Whether the tokenizer normalizes and splits text as its file says.

    For some architectures (Qwen2 and all that is distilled into it among them) Transformers 5 builds the class that it
    has registered, with that class's own rules, around the file's vocabulary: the model was not trained on those tokens.
    """
    if not tokenizer.is_fast or not file.is_file():
        return True
    written, built = json.loads(file.read_text(encoding="utf-8")), json.loads(tokenizer.backend_tokenizer.to_str())
    return all(_without_offsets(built[step]) == _without_offsets(written[step]) for step in SPLITTING)


def _without_offsets(step: Any) -> Any:
    """A step of the file without the setting that changes only how tokens point back into the text."""
    if isinstance(step, dict):
        return {key: _without_offsets(value) for key, value in step.items() if key != "trim_offsets"}
    return [_without_offsets(one) for one in step] if isinstance(step, list) else step


def check_ids(tokenizer: PreTrainedTokenizerBase, source: Source, cfg: ModelConfig) -> None:
    """What `check_vocabulary` does, told from config.json before any weight is read."""
    rows = read(source, cfg)[0].get_text_config().to_dict().get("vocab_size")
    grows = cfg.resize_vocab or bool(new_tokens.asked_for(cfg))
    if rows is not None and not grows:
        _refuse_beyond(tokenizer, rows)


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError when the tokenizer can give an id for which the model has no embedding."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Module)
    # Under an adapter that trains some rows, these lie beside the whole.
    _refuse_beyond(tokenizer, max(len(weight) for weight in embeddings.parameters()))


def _refuse_beyond(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ModelError(
            f"tokenizer and model do not fit: ids go up to {largest} ({token!r}), the embeddings have {rows} rows; "
            "resize_vocab: true gives the model more"
        )
