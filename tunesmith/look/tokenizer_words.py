"""What a chat format needs of a tokenizer, read from its folder in a few milliseconds.  Knows the files; imports neither
torch nor transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.data.chat_format import stop_ids
from tunesmith.log import ModelError
from tunesmith.templates.resolve import TokenizerWords

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CONFIG, MAP, VOCABULARY = "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"
TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"


def read_words(folder: Path) -> TokenizerWords:
    """Chat template, named tokens and special tokens, as transformers reads them from the same files.

    Raises ModelError for a folder without a tokenizer's configuration, or with a damaged one."""
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder}: holds no {CONFIG}, so nothing is known of its chat template")
    config, more = _read(folder / CONFIG), _read(folder / MAP)
    tokens = {name: text for name in NAMED if (text := _text(config.get(name, more.get(name)))) is not None}
    if "pad_token" not in tokens and "eos_token" in tokens:
        tokens["pad_token"] = tokens["eos_token"]
    special = _special(folder, config, more, tokens)
    return TokenizerWords(_chat_template(folder, config), tokens, special, _stops(folder, config))


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The template in a file of its own, else that of the configuration; several by their names."""
    own = {"default": folder / TEMPLATE} if (folder / TEMPLATE).is_file() else {}
    files = own | {path.stem: path for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    found: Any = {name: path.read_text(encoding="utf-8") for name, path in files.items()} or config.get("chat_template")
    if isinstance(found, list):
        found = {each["name"]: each["template"] for each in found}
    return found["default"] if isinstance(found, dict) and list(found) == ["default"] else found


def _special(
    folder: Path, config: Mapping[str, Any], more: Mapping[str, Any], tokens: Mapping[str, str]
) -> tuple[str, ...]:
    """The text of every special token that the files name."""
    added = [*config.get("added_tokens_decoder", {}).values(), *_read(folder / VOCABULARY).get("added_tokens", ())]
    extra: list[Any] = []
    for source in (config, more):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            found = source.get(key) or ()
            extra += found.values() if isinstance(found, Mapping) else found
    texts = [*tokens.values(), *(each["content"] for each in added if each.get("special")), *map(_text, extra)]
    return tuple(dict.fromkeys(text for text in texts if text))


def _stops(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The tokens at which the model stops."""
    ids = stop_ids(folder)
    added = _read(folder / VOCABULARY).get("added_tokens", ()) if ids else ()
    by_id = {int(id): each["content"] for id, each in config.get("added_tokens_decoder", {}).items()}
    by_id |= {each["id"]: each["content"] for each in added}
    return tuple(by_id[id] for id in ids if id in by_id)


def _text(token: Any) -> str | None:
    """A token is written as its text, or as an object that holds it."""
    return token["content"] if isinstance(token, Mapping) else token


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as reason:
        raise ModelError(f"{path}: is damaged: {reason}") from reason
    if not isinstance(found, dict):
        raise ModelError(f"{path}: must be a JSON object")
    return found
