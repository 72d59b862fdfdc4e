"""How calls are written and read again: as JSON objects, as a name and its JSON, as XML.  Knows no family."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.templates.dialects.prompts import quoted
from tunesmith.templates.template import Piece, Pieces, control, data, join
from tunesmith.templates.tools import Call, Tool, dumps

_DECODER = json.JSONDecoder()

JINJA_CALL = "{%- set call = call.function if call.function is defined else call -%}"
JINJA_ARGUMENTS = "(call['arguments'] if call['arguments'] is string else call['arguments'] | tojson)"


def decode(text: str, start: int = 0) -> tuple[Any, int] | None:
    """The JSON value that begins at `start`, after white space, and where it ends; None when there is none."""
    while start < len(text) and text[start].isspace():
        start += 1
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None


def calls_of(found: Any, key: str) -> list[Call]:
    """Calls of a decoded object or list of objects with `name` and `key`; [] when it is something else."""
    objects = found if isinstance(found, list) else [found]
    calls = []
    for one in objects:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not isinstance(one.get(key), dict):
            return []
        calls.append(Call(one["name"], one[key]))
    return calls


def _object(call: Call, key: str) -> list[Piece]:
    name, arguments = data(dumps(call.name)), data(dumps(call.arguments))
    return [control('{"name": '), name, control(f', "{key}": '), arguments, control("}")]


def _jinja_object(key: str) -> str:
    head, middle = quoted('{"name": '), quoted(f', "{key}": ')
    return f"{head} ~ (call['name'] | tojson) ~ {middle} ~ {JINJA_ARGUMENTS} ~ '}}'"


def _separated(parts: Sequence[Sequence[Piece]], separator: str) -> Iterator[Piece]:
    for number, part in enumerate(parts):
        if number:
            yield control(separator)
        yield from part


def _jinja_each(expression: str, separator: str) -> str:
    between = f"{{{{- {quoted(separator)} if not loop.first -}}}}"
    return f"{{%- for call in calls -%}}{JINJA_CALL}{between}{{{{- {expression} -}}}}{{%- endfor -%}}"


@dataclass(frozen=True)
class JsonCalls:
    """Each call a JSON object between `before` and `after`, all between `head` and `tail`."""

    before: str
    after: str
    head: str = ""
    tail: str = ""
    separator: str = "\n"

    def write(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Pieces:
        """The calls."""
        each = [[control(self.before), *_object(call, "arguments"), control(self.after)] for call in calls]
        return join([control(self.head), *_separated(each, self.separator), control(self.tail)])

    def parse(self, text: str, tools: Sequence[Tool]) -> list[Call]:
        """The calls in an answer."""
        mark = (self.before or self.head).strip()
        calls: list[Call] = []
        end = text.find(mark)
        while end >= 0:
            end += len(mark)
            while found := decode(text, end):
                value, end = found
                calls += calls_of(value, "arguments")
                if self.before:
                    break
            end = text.find(mark, end)
        return calls

    def jinja(self) -> str:
        """The same in Jinja."""
        each = _jinja_each(
            f"{quoted(self.before)} ~ {_jinja_object('arguments')} ~ {quoted(self.after)}", self.separator
        )
        return f"{{{{- {quoted(self.head)} -}}}}{each}{{{{- {quoted(self.tail)} -}}}}"


@dataclass(frozen=True)
class JsonListCalls:
    """All calls as one JSON list; `single_bare`: one call stands without the list."""

    arguments: str = "arguments"
    single_bare: bool = False

    def write(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Pieces:
        """The calls."""
        bare = self.single_bare and len(calls) == 1
        each = list(_separated([_object(call, self.arguments) for call in calls], ", "))
        return join(each if bare else [control("["), *each, control("]")])

    def parse(self, text: str, tools: Sequence[Tool]) -> list[Call]:
        """The calls in an answer; words before them are skipped."""
        for start in (match.start() for match in re.finditer(r"[\[{]", text)):
            found = decode(text, start)
            if found and (calls := calls_of(found[0], self.arguments)):
                return calls
        return []

    def jinja(self) -> str:
        """The same in Jinja."""
        each = _jinja_each(_jinja_object(self.arguments), ", ")
        listed = "calls | length != 1" if self.single_bare else "true"
        return f"{{{{- '[' if {listed} -}}}}{each}{{{{- ']' if {listed} -}}}}"


@dataclass(frozen=True)
class NamedCalls:
    """Each call its name after `before`, then `between`, then its arguments as JSON."""

    before: str
    between: str
    separator: str

    def write(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Pieces:
        """The calls."""
        each = [
            [control(self.before), data(call.name), control(self.between), data(dumps(call.arguments))]
            for call in calls
        ]
        return join(_separated(each, self.separator))

    def parse(self, text: str, tools: Sequence[Tool]) -> list[Call]:
        """The calls in an answer; words before and between them are skipped."""
        calls, end = [], 0
        start = re.escape(self.before) or rf"(?:^|{re.escape(self.separator)})"
        pattern = re.compile(rf"{start}([\w.$:/-]+){re.escape(self.between)}(?=\s*{{)", re.MULTILINE)
        while match := pattern.search(text, end):
            found = decode(text, match.end())
            end = found[1] if found else match.end()
            if found and isinstance(found[0], dict):
                calls.append(Call(match[1], found[0]))
        return calls

    def jinja(self) -> str:
        """The same in Jinja."""
        expression = f"{quoted(self.before)} ~ call['name'] ~ {quoted(self.between)} ~ {JINJA_ARGUMENTS}"
        return _jinja_each(expression, self.separator)


@dataclass(frozen=True)
class XmlCalls:
    """Each call with its arguments one by one between marks.

    Strings stand raw and everything else as JSON, so a string that would be read as something else (`3`, `null`, one
    that holds a mark) is written as JSON too, unless the tool's schema says that it is a string.
    """

    head: str
    after_name: str
    before_key: str
    after_key: str
    after_value: str
    tail: str
    separator: str = "\n"

    def write(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Pieces:
        """The calls."""
        return join(_separated([self._call(call, _strings(call.name, tools)) for call in calls], self.separator))

    def _call(self, call: Call, strings: set[str]) -> list[Piece]:
        pieces = [control(self.head), data(call.name), control(self.after_name)]
        for key, value in call.arguments.items():
            pieces += [control(self.before_key), data(_key(key)), control(self.after_key)]
            pieces += [data(self._value(value, key in strings)), control(self.after_value)]
        return [*pieces, control(self.tail)]

    def _value(self, value: Any, is_string: bool) -> str:
        if isinstance(value, str) and self._stands(value) and _read_value(value, is_string) == value:
            return value
        text = dumps(value)
        return text if self._stands(text) else text.replace("<", "\\u003c")

    def _stands(self, text: str) -> bool:
        """Whether `text` holds no mark that would end the value or begin another call."""
        return self.after_value.strip() not in text and self.head.strip() not in text

    def parse(self, text: str, tools: Sequence[Tool]) -> list[Call]:
        """The calls in an answer; words before them are skipped."""
        head, calls = self.head.strip(), []
        for body in text.split(head)[1:]:
            key, after_key = re.escape(self.before_key.lstrip()), re.escape(self.after_key)
            value = rf"{key}(.*?){after_key}(.*?){re.escape(self.after_value)}"
            first = body.find(self.before_key.lstrip())
            name = re.match(r"[^\s<>\"]+", body if first < 0 else body[:first])
            if name:
                strings = _strings(name[0], tools)
                found = ((_read_key(m[1]), m[2]) for m in re.finditer(value, body, re.DOTALL))
                calls.append(Call(name[0], {key: _read_value(v, key in strings) for key, v in found}))
        return calls

    def jinja(self) -> str:
        """The same in Jinja, for values whose own text tells what they are."""
        argument = (
            f"{{{{- {quoted(self.before_key)} ~ key ~ {quoted(self.after_key)} ~ "
            f"(value if value is string else value | tojson) ~ {quoted(self.after_value)} -}}}}"
        )
        return (
            f"{{%- for call in calls -%}}{JINJA_CALL}{{{{- {quoted(self.separator)} if not loop.first -}}}}"
            f"{{{{- {quoted(self.head)} ~ call['name'] ~ {quoted(self.after_name)} -}}}}"
            f"{{%- for key, value in call['arguments'].items() -%}}{argument}{{%- endfor -%}}"
            f"{{{{- {quoted(self.tail)} -}}}}{{%- endfor -%}}"
        )


def _strings(name: str, tools: Sequence[Tool]) -> set[str]:
    """Arguments of the tool `name` that its schema declares as strings."""
    for tool in tools:
        if tool["name"] == name:
            properties = (tool.get("parameters") or {}).get("properties") or {}
            return {key for key, schema in properties.items() if schema.get("type") == "string"}
    return set()


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w.$-]+", key) else dumps(key).replace("<", "\\u003c").replace(">", "\\u003e")


def _read_key(text: str) -> str:
    return json.loads(text) if text.startswith('"') and text.endswith('"') and len(text) > 1 else text


def _read_value(text: str, is_string: bool) -> Any:
    """The value that `text` stands for.  Of a declared string only a quoted text is JSON."""
    if is_string and not text.startswith('"'):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if not is_string or isinstance(value, str) else text
