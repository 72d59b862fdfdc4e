"""What can be wrong within one conversation.  Each check is a function of it that yields what it found; knows no other row."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tunesmith.data.faults.broken_text import is_lost, unscrambled, unseen
from tunesmith.data.faults.languages import language
from tunesmith.log import DataError
from tunesmith.templates.conversation import Conversation, Message
from tunesmith.templates.tools import read_tools, split_calls

FEWEST_REPEATED = 20
"""Characters of a question that an answer must begin with to count as repeating it."""

PLACEHOLDERS = re.compile(
    r"\{\{\s*[A-Za-z_]\w*\s*\}\}"
    r"|\{(?:name|author|user|instruction|input|output|question|answer|prompt|response|text|context)\}"
    r"|\[(?:your|insert|company|customer|recipient|sender)(?: [\w' ]{1,40})?\]"
    r"|\[enter (?:your|the|a) [\w' ]{1,40}\]|\[(?:name|date|address|email|phone number)\]"
    r"|<(?:your|insert|enter) [\w' ]{1,40}>"
    r"|\blorem ipsum\b",
    re.IGNORECASE,
)
NOTHING = frozenset({"n/a", "na", "none", "null", "nan", "nil", "undefined", "todo", "tbd", "no answer", "empty"})
"""What programs and people write where there is no answer."""

CONTROL_TOKENS = re.compile(
    r"<[|｜][^\s<>|｜]{1,40}[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|\[gMASK\]"
)
"""What control tokens of the known families look like."""

_SPACES = re.compile(r"\s+")

Found = Iterator[tuple[str, str]]
"""Checks and what exactly they found."""


@dataclass(frozen=True, slots=True)
class Words:
    """Control tokens to look for.  `becomes`: in text they are control tokens, as `allow_special_tokens` allows."""

    pattern: re.Pattern[str] = CONTROL_TOKENS
    becomes: bool = False

    @classmethod
    def of(cls, tokens: Sequence[str], *, becomes: bool) -> "Words":
        """A tokenizer's own, and what looks like one of another's."""
        own = sorted((re.escape(token) for token in tokens if len(token.strip()) > 2), key=len, reverse=True)
        return cls(re.compile("|".join([*own, CONTROL_TOKENS.pattern])), becomes)


def squeezed(text: str) -> str:
    """The text with single spaces, so that white space makes no difference."""
    return _SPACES.sub(" ", text).strip()


def look(conversation: Conversation, words: Words) -> Found:
    """Everything that the checks below find in a conversation."""
    for check in (_tools, _echoes, _sizes, _placeholders, _encodings, _languages):
        yield from check(conversation)
    yield from _control_tokens(conversation, words)


def look_at_text(text: str, words: Words) -> Found:
    """The same for plain text, as far as that can be wrong."""
    alone = Conversation([Message("user", text)])
    yield from _placeholders(alone)
    yield from _encodings(alone)
    yield from _control_tokens(alone, words)


def unusable(reason: str) -> str:
    """The check that a row fails of which no conversation can be made, by the reason that was given."""
    return next((check for pattern, check in _REASONS if re.search(pattern, reason)), "unusable")


_REASONS = (
    (r"^empty |^null in |^no messages$", "empty"),
    (r"^two questions|^an answer without|^no answer at the end$|^a system message after", "role_order"),
    (r"tool call|tools", "tools"),
)


def _exchanges(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Questions with the answers that follow them, where both are words."""
    for asked, answer in pairwise(conversation.messages):
        if asked.role == "user" and answer.role == "assistant":
            yield asked.content, answer.content


def _tools(conversation: Conversation) -> Found:
    try:
        tools = read_tools(conversation.tools)
    except DataError as reason:
        yield "tools", str(reason)
        return
    names = {tool["name"] for tool in tools}
    for message in conversation.messages:
        if message.role == "function":
            try:
                calls = split_calls(message.content)[1]
            except DataError as reason:
                yield "tools", str(reason)
                continue
            yield from (("unknown_tool", call.name) for call in calls if call.name not in names)


def _echoes(conversation: Conversation) -> Found:
    for asked, answer in _exchanges(conversation):
        question, said = squeezed(asked), squeezed(answer)
        if len(question) >= FEWEST_REPEATED and said.startswith(question):
            yield "repeats_prompt", "it is the question" if said == question else "it begins with the question"


def _sizes(conversation: Conversation) -> Found:
    for message in conversation.messages:
        said = message.content.strip()
        if message.role != "assistant" or not said:
            continue
        if not any(one.isalnum() for one in said) or said.lower().strip(".!-() ") in NOTHING:
            yield "says_nothing", _shown(said)
        elif len(said) <= 2:
            yield "tiny_answer", _shown(said)


def _placeholders(conversation: Conversation) -> Found:
    for text in _texts(conversation):
        if "{" in text or "[" in text or "<" in text or "orem" in text:
            yield from (("placeholder", found) for found in dict.fromkeys(PLACEHOLDERS.findall(text)))


def _encodings(conversation: Conversation) -> Found:
    for text in _texts(conversation):
        if text.isascii() and text.isprintable():
            continue
        if found := unseen(text):
            yield "unseen_characters", ", ".join(found[:5])
        right = unscrambled(text)
        if right != text:
            yield "wrong_encoding", _difference(text, right)
        if is_lost(text):
            yield "lost_characters", ""


def _languages(conversation: Conversation) -> Found:
    for asked, answer in _exchanges(conversation):
        question, said = language(asked), language(answer)
        if question and said and question != said:
            yield "other_language", f"asked in {question}, answered in {said}"


def _control_tokens(conversation: Conversation, words: Words) -> Found:
    check = "control_token" if words.becomes else "special_token"
    for text in _texts(conversation):
        yield from ((check, token) for token in dict.fromkeys(match[0] for match in words.pattern.finditer(text)))


def _texts(conversation: Conversation) -> Iterator[str]:
    yield from (message.content for message in conversation.messages)
    if conversation.system:
        yield conversation.system


def _difference(wrong: str, right: str) -> str:
    """The first place where two texts part, as both have it."""
    at = next((at for at, (one, other) in enumerate(zip(wrong, right, strict=False)) if one != other), 0)
    start = max(0, at - 10)
    return f"{_shown(wrong[start : at + 12])} is {_shown(right[start : at + 8])}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
