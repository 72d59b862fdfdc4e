"""What a model's folder holds besides weights: configuration, tokenizer, chat template, end tokens.  Knows files; knows
no weights and imports no torch."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.log import ModelError
from tunesmith.models.where import Source
from tunesmith.templates.conversation import ChatFormat

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"

OF_MODEL = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "LICENSE*",
    "NOTICE*",
)
OF_TOKENIZER = (
    "tokenizer.json", TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "vocab.txt", "*.model", "*.tiktoken", "tekken.json", "tokenization*.py",
)  # fmt: skip
A_TOKENIZER = ("tokenizer.json", TOKENIZER_CONFIG)
"""Files that make an adapter's folder a tokenizer's."""


def write(source: Source, adapters: Sequence[Source], chat: ChatFormat | None, folder: Path) -> None:
    """Bring everything but weights into `folder`.  What a later adapter's folder has wins over an earlier one's and over
    the model's: a run saves the tokenizer, chat template and end tokens that it trained with.

    `chat`: the format to write instead of the template that is there.  A `config.json` that is there already stays.
    """
    places = [*(adapter.folder for adapter in reversed(adapters)), source.folder]
    if not (folder / CONFIG).exists():
        shutil.copyfile(source.folder / CONFIG, folder / CONFIG)
    _copy(source.folder, OF_MODEL, folder)
    if "auto_map" in _read(folder / CONFIG):
        _copy(source.folder, ("*.py",), folder)
    _copy(_first(places, A_TOKENIZER) or source.folder, OF_TOKENIZER, folder)
    if generation := _first(places, (GENERATION,)):
        shutil.copyfile(generation / GENERATION, folder / GENERATION)
    if chat is None:
        _copy_template(places, folder)
    else:
        _write_template(chat, folder)


def _first(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next((place for place in places if all((place / name).is_file() for name in names)), None)


def _copy(place: Path, patterns: Sequence[str], folder: Path) -> None:
    for pattern in patterns:
        for path in sorted(place.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


def _copy_template(places: Sequence[Path], folder: Path) -> None:
    found = _first(places, (TEMPLATE,))
    if found is None:
        return
    shutil.copyfile(found / TEMPLATE, folder / TEMPLATE)
    if (found / MORE_TEMPLATES).is_dir():
        shutil.copytree(found / MORE_TEMPLATES, folder / MORE_TEMPLATES)


def _write_template(chat: ChatFormat, folder: Path) -> None:
    """Write the format's template, take an older one out of the tokenizer's configuration, and add the end tokens."""
    source = chat.chat_template()
    several = source if isinstance(source, dict) else {"default": source}
    for name, text in several.items():
        path = folder / TEMPLATE if name == "default" else folder / MORE_TEMPLATES / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    config = _read(folder / TOKENIZER_CONFIG)
    if config.pop("chat_template", None) is not None:
        _write(folder / TOKENIZER_CONFIG, config)
    _add_stops(chat.stop_words, folder)


def _add_stops(words: Sequence[str], folder: Path) -> None:
    vocabulary = folder / "tokenizer.json"
    if not words or not vocabulary.is_file():
        return
    ids = {token["content"]: token["id"] for token in _read(vocabulary).get("added_tokens", ())}
    generation = _read(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    own = generation.get("eos_token_id", _read(folder / CONFIG).get("eos_token_id"))
    owned = own if isinstance(own, list) else [own]
    stops = dict.fromkeys([*(ids[word] for word in words if word in ids), *(one for one in owned if one is not None)])
    if stops:
        _write(folder / GENERATION, generation | {"eos_token_id": list(stops)})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as fault:
        raise ModelError(f"{path}: not valid JSON: {fault}") from fault
    if not isinstance(content, dict):
        raise ModelError(f"{path}: a JSON object is expected")
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
