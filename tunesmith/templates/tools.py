"""Tools and tool calls as data has them, and the dialects in which templates write them.  Knows no template.

A dialect writes pieces: its own words are control, whatever came from the row is data.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from tunesmith.log import DataError
from tunesmith.templates.template import Pieces

Tool = Mapping[str, Any]
"""A function's `name`, `description` and `parameters` (JSON schema), without the OpenAI wrapping around it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: dict[str, Any]


class ToolsWriter(Protocol):
    """What the system prompt says of the tools."""

    def write(self, tools: Sequence[Tool], source: str, date: str) -> Pieces:
        """The tools' description.  `source`: the row's own JSON of them; `date`: for dialects that tell one."""
        ...

    def jinja(self, date: str) -> str:
        """The body of a Jinja macro that writes the same of a list `tools`."""
        ...


class CallsWriter(Protocol):
    """How an answer calls."""

    def write(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Pieces:
        """The calls.  The tools' schemas tell XML dialects which arguments are strings."""
        ...

    def parse(self, text: str, tools: Sequence[Tool]) -> list[Call]:
        """The calls in an answer, [] when there are none: the inverse of `write`."""
        ...

    def jinja(self) -> str:
        """The body of a Jinja macro that writes the same of a list `calls`."""
        ...


@dataclass(frozen=True)
class Dialect:
    """How one family writes tools and calls."""

    name: str
    tools: ToolsWriter
    calls: CallsWriter


MOST_STARTS = 1000
"""Brackets of a turn at which its calls are looked for."""

MOST_LEVELS = 100
"""Lists and objects within one another in a row's JSON.  What writes them calls itself for each."""


def parsed(text: str) -> Any:
    """The value of a JSON text.  Raises ValueError for what is no JSON, and for what no program could write again."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it holds a number of thousands of digits") from None
    level = [found]
    for _ in range(MOST_LEVELS):
        level = [inner for one in level if isinstance(one, dict | list) for inner in _within(one)]
        if not level:
            return found
    raise ValueError("it is nested too deeply")


def _within(one: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return one.values() if isinstance(one, dict) else one


def read_tools(text: str, where: str = "") -> list[Tool]:
    """Tools of a row: a JSON list (or one object) of functions, bare or as OpenAI objects.  DataError: neither."""
    if not text.strip():
        return []
    try:
        found = parsed(text)
    except ValueError as error:
        raise DataError(f"{_at(where)}tools are not JSON: {error}") from None
    tools = [_unwrapped(tool) for tool in (found if isinstance(found, list) else [found])]
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise DataError(f"{_at(where)}each tool must be an object with a name, got {json.dumps(tool)[:80]}")
    return tools


def read_calls(text: str, where: str = "") -> list[Call]:
    """Calls of a function turn: a JSON object or list of {name, arguments}, bare or as OpenAI's `tool_calls`; arguments
    may be an object or its JSON text.  DataError: anything else."""
    try:
        found = parsed(text)
    except ValueError as error:
        raise DataError(
            f"{_at(where)}a function turn must hold its calls as JSON: {error}; got {text[:80]!r}"
        ) from None
    if not (calls := found if isinstance(found, list) else [found]):
        raise DataError(f"{_at(where)}a function turn must hold a call, got an empty list")
    return [_read_call(call, where) for call in calls]


def split_calls(text: str, where: str = "") -> tuple[str, list[Call]]:
    """The words that a function turn says before its calls, and the calls: JSON that ends the text, or JSON between
    `<tool_call>` marks.  DataError: no calls."""
    if marked := re.findall(r"<tool_call>(\s*[{\[].*?)</tool_call>", text, re.DOTALL):
        return text[: text.index("<tool_call>")], [call for one in marked for call in read_calls(one, where)]
    for start in (match.start() for match in islice(re.finditer(r"[\[{]", text), MOST_STARTS)):
        try:
            parsed(text[start:])
        except ValueError:
            continue
        return text[:start], read_calls(text[start:], where)
    return "", read_calls(text, where)


def _read_call(found: Any, where: str) -> Call:
    call = _unwrapped(found)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise DataError(f"{_at(where)}each call must be an object with a name, got {json.dumps(found)[:80]}")
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = parsed(arguments or "{}")
        except ValueError:
            arguments = None
    if not isinstance(arguments, dict):
        raise DataError(f"{_at(where)}arguments of the call {call['name']!r} must be a JSON object")
    return Call(call["name"], arguments)


def _unwrapped(found: Any) -> Any:
    """The function inside an OpenAI object, or the object itself."""
    if isinstance(found, dict) and isinstance(found.get("function"), dict):
        return found["function"]
    return found


def wrapped(tool: Tool) -> dict[str, Any]:
    """The tool as an OpenAI object."""
    return {"type": "function", "function": tool}


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON as models are shown it: no ASCII escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
