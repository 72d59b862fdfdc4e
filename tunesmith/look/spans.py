"""Conversations -> what a chat format writes of them, learned or not.  Loads no model and no torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tunesmith.config.load import Loaded
from tunesmith.data.chat_format import chat_format
from tunesmith.log import DataError, OptionError
from tunesmith.look.conversations import read_conversations
from tunesmith.look.tokenizer_words import read_words
from tunesmith.models.where import find
from tunesmith.templates.conversation import ChatFormat, Conversation, Piece, Span
from tunesmith.templates.resolve import TokenizerWords


def written(loaded: Loaded, file: Path) -> dict[str, list[Span] | str]:
    """The spans of each conversation of a file, by the template that the options name or by the model's own; or the
    reason why a template does not write it.  A model's own words stand where `<BOS>` and `<EOS>` would.

    Raises OptionError or ModelError for the template and the model, DataError for a file that holds no conversations."""
    cfg = loaded.config
    if cfg.data.template == "auto" and not cfg.model.model_name_or_path:
        raise OptionError(
            "template: --conversations needs the name of one, or a model for its own (model_name_or_path)"
        )
    words = read_words(find(cfg.model).folder) if cfg.model.model_name_or_path else None
    chat = chat_format(cfg.data, words or TokenizerWords())
    conversations = read_conversations(file)
    return {case: _spans(chat, conversation, words) for case, conversation in conversations.items()}


def _spans(chat: ChatFormat, conversation: Conversation, words: TokenizerWords | None) -> list[Span] | str:
    try:
        spans = chat.render(conversation)
    except DataError as reason:
        return str(reason).removeprefix(f"{conversation.where}: ")
    return spans if words is None else [_spelled(span, words.tokens) for span in spans]


def _spelled(span: Span, tokens: Mapping[str, str]) -> Span:
    """The span with a tokenizer's own words for its bos and eos; a missing one is left out."""
    pieces = (Piece(tokens.get(f"{p.text}_token", "")) if p.kind == "token" else p for p in span.pieces)
    return replace(span, pieces=tuple(piece for piece in pieces if piece.text))
