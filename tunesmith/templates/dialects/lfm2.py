"""Calls written like Python's, values as JSON: `[get_weather(city="Oslo")]`.  Knows no template."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.templates.dialects.calls import JINJA_CALL, decode
from tunesmith.templates.dialects.prompts import quoted
from tunesmith.templates.template import Pieces, control, data, join
from tunesmith.templates.tools import Call, Tool, dumps

_NAME = re.compile(r"\s*([^\s(),\[\]=\"]+)\(")
_KEY = re.compile(r"\s*([^\s(),=\"]+)=")


@dataclass(frozen=True)
class PythonCalls:
    """A list of calls between `head` and `tail`.  A key that is no word is written as a JSON string."""

    head: str
    tail: str

    def write(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Pieces:
        """The calls."""
        pieces = [control(self.head)]
        for number, call in enumerate(calls):
            pieces += [control(", " if number else ""), data(call.name), control("(")]
            for position, (key, value) in enumerate(call.arguments.items()):
                name = key if key.isidentifier() else dumps(key)
                pieces += [control(", " if position else ""), data(name), control("="), data(dumps(value))]
            pieces.append(control(")"))
        return join([*pieces, control(self.tail)])

    def parse(self, text: str, tools: Sequence[Tool]) -> list[Call]:
        """The calls in an answer, whether or not its special tokens are still in it."""
        start = text.find(self.head)
        end = start + len(self.head) if start >= 0 else text.find("[") + 1
        calls: list[Call] = []
        while end and (name := _NAME.match(text, end)):
            found = _arguments(text, name.end())
            if found is None:
                break
            calls.append(Call(name[1], found[0]))
            comma = re.compile(r"\s*,").match(text, found[1])
            end = comma.end() if comma else 0
        return calls

    def jinja(self) -> str:
        """The same in Jinja, for keys that are words."""
        argument = "{{- ', ' if not loop.first -}}{{- key ~ '=' ~ (value | tojson) -}}"
        return (
            f"{{{{- {quoted(self.head)} -}}}}{{%- for call in calls -%}}{JINJA_CALL}{{{{- ', ' if not loop.first -}}}}"
            f"{{{{- call['name'] ~ '(' -}}}}{{%- for key, value in call['arguments'].items() -%}}{argument}"
            f"{{%- endfor -%}}{{{{- ')' -}}}}{{%- endfor -%}}{{{{- {quoted(self.tail)} -}}}}"
        )


def _arguments(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    """Arguments up to the closing bracket and the place behind it, or None when they cannot be read."""
    arguments: dict[str, Any] = {}
    end = start
    while not (closed := re.compile(r"\s*\)").match(text, end)):
        comma = re.compile(r"\s*,").match(text, end) if arguments else None
        end = comma.end() if comma else end
        if word := _KEY.match(text, end):
            key, end = word[1], word.end()
        elif (found := decode(text, end)) and isinstance(found[0], str) and text[found[1] : found[1] + 1] == "=":
            key, end = found[0], found[1] + 1
        else:
            return None
        if not (value := decode(text, end)):
            return None
        arguments[key], end = value
    return arguments, closed.end()
