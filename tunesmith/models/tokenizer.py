"""Reads a model's tokenizer, and makes sure that it fits the model.  Knows no chat format."""

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tunesmith import log
from tunesmith.config.model import ModelConfig
from tunesmith.log import ModelError
from tunesmith.models.architecture import code_that_runs
from tunesmith.models.where import Source


def load_tokenizer(source: Source, cfg: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of the folder, with a pad token that changes nothing: its own, else its end token (attention masks
    hide padding), else the token of id 0.  No token is added.  Raises ModelError when there is none to read."""
    is_model = (source.folder / "config.json").is_file()  # an adapter's folder brings a tokenizer, and never code
    trusted = is_model and bool(code_that_runs(source, cfg))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=trusted, use_fast=cfg.use_fast_tokenizer
        )
    except Exception as failure:  # the Rust tokenizer raises bare Exceptions for a damaged file
        raise ModelError(f"{source.folder}: its tokenizer cannot be read: {failure}") from failure
    if len(tokenizer) == 0:
        raise ModelError(f"{source.folder}: its tokenizer has no tokens")
    if not tokenizer.is_fast:
        log.warn("use_fast_tokenizer", f"{source.folder} gives only a slow tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        log.note("tokenizer", f"it has no pad token; {tokenizer.pad_token!r} fills up rows, hidden from the model")
    return tokenizer


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError when the tokenizer can give an id for which the model has no embedding."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    rows = embeddings.num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ModelError(
            f"tokenizer and model do not fit: ids go up to {largest} ({token!r}), the embeddings have {rows} rows"
        )
