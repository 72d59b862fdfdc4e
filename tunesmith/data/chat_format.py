"""The chat format that the options and a tokenizer mean.  Knows both sides; the templates room knows neither."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import catalog, log
from tunesmith.config.data import DataConfig
from tunesmith.templates.compare import PROBES, first_difference
from tunesmith.templates.conversation import ChatFormat
from tunesmith.templates.resolve import Changes, TokenizerWords, resolve
from tunesmith.templates.several import DEFAULT
from tunesmith.templates.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_format(cfg: DataConfig, tokenizer: "PreTrainedTokenizerBase | TokenizerWords") -> ChatFormat:
    """The format that `template` and its options mean for this tokenizer, or for what is known of one.

    Raises OptionError for `auto` with a tokenizer that has no chat template, and for unknown names, keys and values.
    """
    words = tokenizer if isinstance(tokenizer, TokenizerWords) else _words(tokenizer)
    return resolve(cfg.template, _changes(cfg), words, named=partial(catalog.find, "template"))


def compare_with_own(cfg: DataConfig, chat: ChatFormat, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Warn once when `chat` writes conversations otherwise than the tokenizer's own chat template, showing the first
    place where they part; other programs will talk to the model by its own."""
    own_template: str | dict[str, str] | None = tokenizer.chat_template
    if cfg.template == "auto" or not own_template or (isinstance(own_template, dict) and DEFAULT not in own_template):
        return
    own = resolve("auto", replace(_changes(cfg), template_args={}, tool_format=None), _words(tokenizer), named=_no_name)
    for conversation in PROBES[:2]:
        with log.muted():  # what there is to say of the tokenizer's own is of no use to who chose another
            found = first_difference(chat, own, conversation, tokenizer.special_tokens_map)
        if found:
            log.warn(
                "template",
                f"{chat.name} differs from the tokenizer's own in {conversation.where}: it writes {found[0]!r}, the "
                f"tokenizer's own {found[1]!r}",
            )
            return


def _changes(cfg: DataConfig) -> Changes:
    return Changes(
        template_args=cfg.template_args,
        default_system=cfg.default_system,
        tool_format=cfg.tool_format,
        enable_thinking=cfg.enable_thinking,
        thinking=cfg.thinking,
    )


def _no_name(name: str) -> Template:
    raise AssertionError(f"auto looks up no name, not even {name}")


def _words(tokenizer: "PreTrainedTokenizerBase") -> TokenizerWords:
    ids = stop_ids(Path(tokenizer.name_or_path)) if tokenizer.name_or_path else []
    stops = tokenizer.convert_ids_to_tokens(ids)
    return TokenizerWords(
        chat_template=tokenizer.chat_template,
        tokens=tokenizer.special_tokens_map,
        special=[token.content for token in tokenizer.added_tokens_decoder.values() if token.special],
        stops=[stop for stop in stops if stop is not None],
    )


def stop_ids(folder: Path) -> list[int]:
    """Ids at which the model in a folder stops, by its `generation_config.json`; [] without one."""
    try:
        found = json.loads((folder / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):  # the file says nothing that can be used
        return []
    return [one for one in (found if isinstance(found, list) else [found]) if type(one) is int]
