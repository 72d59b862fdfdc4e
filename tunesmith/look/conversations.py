"""A JSON file of conversations -> conversations by name: `{case: {messages, system, tools}}`, a list of such, or rows of
OpenAI's or sharegpt's messages.  Knows the file; knows no template."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from tunesmith.data.reading.formats import Unusable, openai, sharegpt
from tunesmith.data.reading.sources import OPENAI_TAGS, Columns, Tags
from tunesmith.log import DataError, OptionError
from tunesmith.templates.conversation import Conversation, Message, Role, Thinking

KEYS = ("messages", "conversations", "system", "tools", "thinking")
SHAPE = '{"messages": [{"role": ..., "content": ...}], "system": ..., "tools": ...}'
ROLES = (*get_args(Role), "developer", "tool")
_AS_OPENAI = {"function": OPENAI_TAGS.function_tag, "observation": OPENAI_TAGS.observation_tag}
_COLUMNS = Columns(messages="messages")


def read_conversations(path: Path) -> dict[str, Conversation]:
    """The conversations of a file by name; those of a list are called by their number, from 1.

    Raises OptionError when there is no such file, DataError naming file, case and message for what is no conversation."""
    found = _read(path)
    if isinstance(found, dict) and isinstance(found.get("conversations"), dict):
        found = found["conversations"]
    elif isinstance(found, dict) and isinstance(found.get("messages", found.get("conversations")), list):
        found = [found]
    if isinstance(found, list):
        found = {str(number): each for number, each in enumerate(found, start=1)}
    if not isinstance(found, dict):
        raise DataError(f"{path}: must be a JSON object {{case: {SHAPE}}}, or a list of such")
    return {case: _conversation(value, f"{path}: {case}") for case, value in found.items()}


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as reason:
        raise OptionError(f"--conversations: {path} cannot be read: {reason.strerror}") from reason
    except UnicodeDecodeError as reason:
        raise DataError(f"{path}: is not UTF-8: {reason}") from reason
    try:
        return json.loads(text)
    except json.JSONDecodeError as reason:
        if path.suffix == ".jsonl":
            return [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        raise DataError(f"{path}: line {reason.lineno} column {reason.colno}: {reason.msg}") from reason


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as reason:
        raise DataError(f"{path}: line {number} column {reason.colno}: {reason.msg}") from reason


def _conversation(value: Any, where: str) -> Conversation:
    if isinstance(value, list):
        value = {"messages": value}
    messages = value.get("messages", value.get("conversations")) if isinstance(value, Mapping) else None
    if not isinstance(messages, list):
        raise DataError(f"{where}: must be an object {SHAPE}")
    if unknown := [key for key in value if key not in KEYS]:
        raise DataError(f"{where}: unknown key '{unknown[0]}'; known are {', '.join(KEYS)}")
    system = value.get("system")
    if system is not None and not isinstance(system, str):
        raise DataError(f"{where}: system must be a text, got {json.dumps(system)[:40]}")
    tools, thinking = value.get("tools") or "", value.get("thinking")
    if thinking not in (None, *get_args(Thinking)):
        raise DataError(f"{where}: thinking must be one of {', '.join(get_args(Thinking))}, got {thinking!r}")
    turns = tuple(_message(each, f"{where}: message {number}") for number, each in enumerate(messages, start=1))
    if not turns:
        raise DataError(f"{where}: has no messages")
    return Conversation(
        turns, system, tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False), where, thinking
    )


def _message(value: Any, where: str) -> Message:
    """A message whose role is one of ours, or one of OpenAI's or sharegpt's forms."""
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: must be an object with role and content, got {json.dumps(value)[:40]}")
    role: Any = value.get("role")
    content = value.get("content")
    if role in get_args(Role) and isinstance(content, str) and set(value) == {"role", "content"}:
        return Message(role, content)
    try:
        if "from" in value:
            turns, system = sharegpt({"messages": [value]}, _COLUMNS, Tags())
        elif role in ROLES:
            # A named function message is OpenAI's old form of a tool's result; ours holds calls.
            renamed = role if role == "function" and "name" in value else _AS_OPENAI.get(role, role)
            turns, system = openai({"messages": [{**value, "role": renamed}]}, _COLUMNS, OPENAI_TAGS)
        else:
            raise Unusable(f"unknown role {json.dumps(role)}; known are {', '.join(ROLES)}")
    except Unusable as reason:
        raise DataError(f"{where}: {reason}") from None
    return Message(*turns[0]) if turns else Message("system", system)
