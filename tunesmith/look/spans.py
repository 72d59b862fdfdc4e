"""Conversations -> what a chat format writes of them, learned or not.  Loads no model and no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.config.data import DataConfig
from tunesmith.config.load import Loaded
from tunesmith.data.chat_format import chat_format
from tunesmith.data.encoding.encode import trained_spans
from tunesmith.log import DataError, OptionError
from tunesmith.look.conversations import read_conversations
from tunesmith.look.tokenizer_words import read_words
from tunesmith.models.where import find
from tunesmith.templates.conversation import ChatFormat, Conversation, Piece, Span
from tunesmith.templates.resolve import TokenizerWords


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation and its spans, or the reason why the template does not write it."""

    conversation: Conversation
    spans: list[Span]
    refused: str | None = None

    def as_json(self) -> Any:
        """`[[text, learned], ...]`, or `{"unsupported": reason}`."""
        if self.refused is not None:
            return {"unsupported": self.refused}
        return [[span.text, span.learned] for span in self.spans]


def written(loaded: Loaded, file: Path) -> dict[str, Written]:
    """What a template writes of each conversation of a file: the one that the options name, or the model's own.  A model's
    own words stand where `<BOS>` and `<EOS>` would.

    Raises OptionError or ModelError for the template and the model, DataError for a file that holds no conversations."""
    cfg = loaded.config
    if cfg.data.template == "auto" and not cfg.model.model_name_or_path:
        raise OptionError(
            "template: --conversations needs the name of one, or a model for its own (model_name_or_path)"
        )
    words = read_words(find(cfg.model).folder) if cfg.model.model_name_or_path else None
    chat = chat_format(cfg.data, words or TokenizerWords())
    conversations = read_conversations(file)
    return {case: _written(chat, each, cfg.data, words) for case, each in conversations.items()}


def _written(chat: ChatFormat, conversation: Conversation, cfg: DataConfig, words: TokenizerWords | None) -> Written:
    try:
        spans = chat.render(conversation)
    except DataError as reason:
        return Written(conversation, [], str(reason).removeprefix(f"{conversation.where}: "))
    trained = trained_spans(spans, conversation, cfg)
    spans = [replace(span, learned=own > 0) for span, own in zip(spans, trained, strict=True)]
    return Written(conversation, spans if words is None else [_spelled(span, words.tokens) for span in spans])


def _spelled(span: Span, tokens: Mapping[str, str]) -> Span:
    """The span with a tokenizer's own words for its bos and eos; a missing one is left out."""
    pieces = (Piece(tokens.get(f"{p.text}_token", "")) if p.kind == "token" else p for p in span.pieces)
    return replace(span, pieces=tuple(piece for piece in pieces if piece.text))
