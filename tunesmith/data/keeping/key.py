"""What shapes prepared rows, part by part, so that a store is used again only where it gives the same rows.  Knows options,
files and tokenizers; knows no store."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tunesmith
from tunesmith.config.data import DataConfig
from tunesmith.data.keeping.prepare import Kind
from tunesmith.data.reading.augment import Augmenter
from tunesmith.data.reading.sources import Dataset
from tunesmith.templates.conversation import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_SHAPING = frozenset(
    {
        "dataset", "eval_dataset", "dataset_dir", "media_dir", "val_size", "eval_on_each_dataset", "mix_strategy",
        "interleave_probs", "streaming", "buffer_size", "packing", "batching", "preprocessing_num_workers",
        "preprocessing_batch_size", "disable_shuffling", "overwrite_cache", "disable_cache", "tokenized_path",
        "max_reported_rows",
    }
)  # fmt: skip
"""Options that say where rows are, how they are prepared, or what happens to them afterwards."""


def key(
    cfg: DataConfig,
    datasets: Sequence[Dataset],
    *,
    kind: Kind,
    seed: int,
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: ChatFormat | None,
    augmenter: Augmenter | None = None,
) -> dict[str, Any] | None:
    """All that shapes the prepared rows of `datasets`; None when the bytes of one cannot be known."""
    parts: dict[str, Any] = {"kind": kind}
    for number, dataset in enumerate(datasets, start=1):
        digest = dataset.source.digest()
        if digest is None:
            return None
        twice = sum(each.name == dataset.name for each in datasets) > 1
        name = f"{dataset.name} (number {number})" if twice else dataset.name
        parts[f"data of {name}"] = f"sha256:{digest}"
        parts[f"columns of {name}"] = _hash(json.dumps(asdict(dataset.shape), sort_keys=True))
        parts[f"num_samples of {name}"] = dataset.num_samples
    parts |= shaping_options(cfg)
    if augmenter is not None:
        parts["variations"] = augmenter.fingerprint()
    if cfg.sample_strategy == "random":
        parts["seed"] = seed
    parts["tokenizer"] = tokenizer_hash(tokenizer)
    if chat_format is not None:
        words = " ".join(chat_format.stop_words)
        parts["chat format"] = _hash(f"{chat_format.name} {chat_format.chat_template()} {words}")
    parts["version of tunesmith"] = _code()
    return parts


def shaping_options(cfg: DataConfig) -> dict[str, Any]:
    """The options that shape a row's tokens."""
    return {name: value for name, value in cfg.model_dump(mode="json").items() if name not in NOT_SHAPING}


def tokenizer_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash of all by which a tokenizer turns text into ids."""
    from transformers import PreTrainedTokenizerFast

    if isinstance(tokenizer, PreTrainedTokenizerFast):
        rules = tokenizer.backend_tokenizer.to_str()
    else:
        rules = json.dumps(
            [type(tokenizer).__name__, tokenizer.get_vocab(), str(tokenizer.init_kwargs)], sort_keys=True
        )
    named = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return _hash(rules + named + str(tokenizer.chat_template))


@cache
def _code() -> str:
    """Hash of the program's own files that prepare rows."""
    home = Path(tunesmith.__file__).parent
    files = sorted([*(home / "data").glob("*.py"), *(home / "templates").rglob("*.py")])
    return _hash("".join(f"{file.relative_to(home)}\n{file.read_text(encoding='utf-8')}" for file in files))


def _hash(text: str) -> str:
    return f"sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
