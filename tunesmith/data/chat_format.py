"""The chat format that the options and a tokenizer mean.  Knows both sides; the templates room knows neither."""

from functools import partial
from typing import TYPE_CHECKING

from tunesmith import catalog
from tunesmith.config.data import DataConfig
from tunesmith.templates.conversation import ChatFormat
from tunesmith.templates.resolve import Changes, TokenizerWords, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_format(cfg: DataConfig, tokenizer: "PreTrainedTokenizerBase") -> ChatFormat:
    """The format that `template` and its options mean for this tokenizer.

    Raises OptionError for `auto` with a tokenizer that has no chat template, and for unknown names, keys and values.
    """
    changes = Changes(
        template_args=cfg.template_args,
        default_system=cfg.default_system,
        tool_format=cfg.tool_format,
        enable_thinking=cfg.enable_thinking,
        thinking=cfg.thinking,
    )
    return resolve(cfg.template, changes, _words(tokenizer), named=partial(catalog.find, "template"))


def _words(tokenizer: "PreTrainedTokenizerBase") -> TokenizerWords:
    return TokenizerWords(
        chat_template=tokenizer.chat_template,
        tokens=tokenizer.special_tokens_map,
        special=[token.content for token in tokenizer.added_tokens_decoder.values() if token.special],
    )
