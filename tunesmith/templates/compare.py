"""Where two ways to write a conversation differ, and whether one way asks as it trains.  Knows no template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tunesmith.log import DataError
from tunesmith.templates.conversation import ChatFormat, Conversation, Message, Span

_BEFORE, _AFTER = 30, 60
EMPTY_THOUGHT = re.compile(r"\s*(?:<think>\s*)?</think>\s*")
"""What training may put, unlearned, behind a prompt, for an answer without a thought."""

_WEATHER = (
    '[{"name": "get_weather", "description": "Weather of a city", "parameters": {"type": "object", '
    '"properties": {"city": {"type": "string", "description": "City name"}}, "required": ["city"]}}]'
)

PROBES = (
    Conversation([Message("user", "Hi"), Message("assistant", "Hello.")], where="a plain conversation"),
    Conversation(
        [Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Bye"), Message("assistant", "Bye!")],
        system="Be brief.",
        where="a conversation of two turns with a system prompt",
    ),
    Conversation(
        [Message("user", "2+2?"), Message("assistant", "<think>\nTwo and two.\n</think>\n\n4")],
        where="a conversation with a thought",
    ),
    Conversation(
        [
            Message("user", "Weather in Oslo?"),
            Message("function", '{"name": "get_weather", "arguments": {"city": "Oslo"}}'),
            Message("observation", '{"temp_c": -3}'),
            Message("assistant", "Cold."),
        ],
        tools=_WEATHER,
        where="a conversation with a tool",
    ),
    Conversation(
        [
            Message("user", "Weather in Oslo and Rome?"),
            Message(
                "function",
                '[{"name": "get_weather", "arguments": {"city": "Oslo"}}, '
                '{"name": "get_weather", "arguments": {"city": "Rome"}}]',
            ),
            Message("observation", '{"temp_c": -3}'),
            Message("observation", '{"temp_c": 20}'),
            Message("assistant", "Cold; warm."),
        ],
        system="Be brief.",
        tools=_WEATHER,
        where="a conversation with parallel calls",
    ),
)
"""Conversations to try a format on before a run, whatever its data is like."""


def written(spans: Sequence[Span], tokens: Mapping[str, str]) -> str:
    """The spans' text with the tokenizer's own bos and eos.  `tokens`: its `special_tokens_map`."""
    pieces = (piece for span in spans for piece in span.pieces)
    return "".join(tokens.get(f"{p.text}_token", "") if p.kind == "token" else p.text for p in pieces)


def first_difference(
    named: ChatFormat, own: ChatFormat, conversation: Conversation, tokens: Mapping[str, str]
) -> tuple[str, str] | None:
    """What a named template and the tokenizer's own write for a conversation, from a little before the place where they
    part; None when they agree.  A refusal counts as a text: its reason."""
    one, other = (_text(form, conversation, tokens) for form in (named, own))
    if one == other:
        return None
    return parted(one, other)


def parted(one: str, other: str) -> tuple[str, str]:
    """Two texts from a little before the place where they part."""
    place = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start, end = max(0, place - _BEFORE), place + _AFTER
    return one[start:end], other[start:end]


def _text(form: ChatFormat, conversation: Conversation, tokens: Mapping[str, str]) -> str:
    try:
        return written(form.render(conversation), tokens)
    except DataError as reason:
        return f"(refused: {reason})"


def asks_otherwise(
    form: ChatFormat, conversation: Conversation, *, allow_empty_thought: bool = True
) -> tuple[str, str] | None:
    """For the first answer that the model would be asked for with other words than it is trained behind: the text
    before the answer in training, and the prompt.  None when all agree.

    `allow_empty_thought`: training may put an unlearned empty thought behind the prompt, for an answer without one.
    """
    before = ""
    for span in form.render(conversation):
        if span.learned:
            asked = replace(conversation, messages=conversation.messages[: span.message])
            prompt = "".join(part.text for part in form.prompt(asked))
            added = before.removeprefix(prompt) if before.startswith(prompt) else None
            if added != "" and not (allow_empty_thought and added and EMPTY_THOUGHT.fullmatch(added)):
                return before, prompt
        before += span.text
    return None
