"""Where two ways to write a conversation differ, and whether one way asks as it trains.  Knows no template."""

from collections.abc import Mapping, Sequence

from tunesmith.log import DataError
from tunesmith.templates.conversation import ChatFormat, Conversation, Span

_BEFORE, _AFTER = 30, 60


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
    place = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start, end = max(0, place - _BEFORE), place + _AFTER
    return one[start:end], other[start:end]


def _text(form: ChatFormat, conversation: Conversation, tokens: Mapping[str, str]) -> str:
    try:
        return written(form.render(conversation), tokens)
    except DataError as reason:
        return f"(refused: {reason})"


def asks_otherwise(form: ChatFormat, conversation: Conversation) -> tuple[str, str] | None:
    """For the first answer that the model would be asked for with other words than it is trained behind: the text
    before the answer in training, and the prompt.  None when all agree."""
    before = ""
    for span in form.render(conversation):
        if span.learned:
            asked = Conversation(
                conversation.messages[: span.message],
                conversation.system,
                conversation.tools,
                thinking=conversation.thinking,
            )
            prompt = "".join(part.text for part in form.prompt(asked))
            if prompt != before:
                return before, prompt
        before += span.text
    return None
