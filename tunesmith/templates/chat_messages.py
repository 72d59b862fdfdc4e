"""A conversation as the list of dicts that Jinja chat templates read.  Knows no template."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.templates.conversation import Conversation
from tunesmith.templates.tools import Call, Tool, read_tools, split_calls, wrapped

SYSTEM, TOOLS = -2, -1
"""Stand for the system prompt and the tools where a turn's number is asked for."""

_JSON_TYPES = {"string", "number", "integer", "boolean", "array", "object", "null"}


@dataclass(frozen=True)
class Style:
    """What chat templates disagree on."""

    no_words: str | None = ""
    """Content of an answer that only calls."""
    arguments_as_text: bool = False
    fold_system: bool = False
    """The system prompt stands before the first user turn's words, for templates without a system role."""


CALL_STYLES = [Style(no_words, as_text) for as_text in (False, True) for no_words in ("", None)]


@dataclass(frozen=True)
class Words:
    """How a row's words are put into the list: as they are, or as stand-ins."""

    say: Callable[[int, str], str]
    """Words of a turn that is not an answer."""
    answer: Callable[[int, str], str]
    value: Callable[[int, Any], Any]
    """A JSON value of a turn's calls, keys too."""
    key: Callable[[int, str], str]
    """A key of a tool's schema that the row chose."""
    name: Callable[[int, str], str]
    """The name of the tool that a turn calls."""


AS_THEY_ARE = Words(
    say=lambda turn, text: text,
    answer=lambda turn, text: text,
    value=lambda turn, value: value,
    key=lambda turn, key: key,
    name=lambda turn, name: name,
)


@dataclass(frozen=True)
class Chat:
    """A conversation for a template: its messages, and how many of them stand before the first turn."""

    messages: list[dict[str, Any]]
    before: int
    tools: list[dict[str, Any]] | None

    def until(self, turn: int) -> list[dict[str, Any]]:
        """The messages before the turn."""
        return self.messages[: self.before + turn]


def as_chat(conversation: Conversation, style: Style, words: Words = AS_THEY_ARE) -> Chat:
    """The conversation as a chat.  DataError: calls or tools that are not JSON."""
    messages: list[dict[str, Any]] = []
    calls: list[tuple[str, str]] = []
    numbers = itertools.count()
    system = conversation.system
    if system is not None and not style.fold_system:
        messages.append({"role": "system", "content": words.say(SYSTEM, system)})
    before = len(messages)
    for turn, message in enumerate(conversation.messages):
        if message.role == "function":
            said, found = split_calls(message.content, conversation.where)
            made = [_call(call, turn, next(numbers), style, words) for call in found]
            calls = [(one["id"], one["function"]["name"]) for one in made]
            content = words.answer(turn, said) if said.strip() else style.no_words
            messages.append({"role": "assistant", "content": content, "tool_calls": made})
        elif message.role == "observation":
            number, name = calls.pop(0) if calls else (_call_id(next(numbers)), None)
            about = {"tool_call_id": number} | ({"name": name} if name is not None else {})
            messages.append({"role": "tool", "content": words.say(turn, message.content)} | about)
        elif message.role == "assistant":
            messages.append({"role": "assistant", "content": words.answer(turn, message.content)})
        else:
            messages.append({"role": message.role, "content": words.say(turn, message.content)})
    if system and style.fold_system:
        _fold(messages, words.say(SYSTEM, system))
    tools = [_tool(tool, words) for tool in read_tools(conversation.tools, conversation.where)]
    return Chat(messages, before, tools or None)


def _fold(messages: list[dict[str, Any]], system: str) -> None:
    for message in messages:
        if message["role"] == "user":
            message["content"] = f"{system}\n\n{message['content']}"
            return


def _call(call: Call, turn: int, number: int, style: Style, words: Words) -> dict[str, Any]:
    arguments = words.value(turn, call.arguments)
    made = {"name": words.name(turn, call.name), "arguments": arguments}
    if style.arguments_as_text:
        made["arguments"] = json.dumps(arguments, ensure_ascii=False)
    return {"id": _call_id(number), "type": "function", "function": made}


def _call_id(number: int) -> str:
    """Nine letters and digits, as the strictest templates want them."""
    return f"call{number:05d}"


def _tool(tool: Tool, words: Words) -> dict[str, Any]:
    return wrapped({name: _schema(value, words, name) for name, value in tool.items()})


def _schema(value: Any, words: Words, under: str = "") -> Any:
    """A part of a tool with its words put in; the schema's own keys and types are left to the template's logic."""
    if isinstance(value, str):
        return value if under == "type" and value in _JSON_TYPES else words.say(TOOLS, value)
    if isinstance(value, Mapping):
        own_keys = under == "properties"
        return {
            words.key(TOOLS, key) if own_keys else key: _schema(part, words, "" if own_keys else key)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_schema(part, words) for part in value]
    return value
