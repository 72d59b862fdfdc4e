"""Gemma 4's own notation for tools and calls: bare keys, sorted, and strings between `<|"|>`.  Knows no template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.templates.dialects.calls import decode
from tunesmith.templates.template import Piece, Pieces, control, data, join
from tunesmith.templates.tools import Call, Tool, dumps

_QUOTE = '<|"|>'
_CALL = re.compile(r"call:([^\s{}]+)\{")
_KEY = re.compile(r"[^\s{}\[\],:\"<>]+")


def _string(text: str) -> list[Piece]:
    if _QUOTE in text:  # it would end there: written as JSON, without the mark in it
        return [data(dumps(text).replace("<", "\\u003c"))]
    return [control(_QUOTE), data(text), control(_QUOTE)]


def _key(key: str) -> Piece:
    return data(key if _KEY.fullmatch(key) else dumps(key).replace("<", "\\u003c"))


def _value(value: Any) -> list[Piece]:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return [control("{"), *_members((_key(key), _value(value[key])) for key in _sorted(value)), control("}")]
    if isinstance(value, list):
        return [control("["), *_commas([_value(item) for item in value]), control("]")]
    return [data(dumps(value))]


def _sorted(mapping: Mapping[str, Any]) -> list[str]:
    """Keys in the order of Jinja's `dictsort`."""
    return sorted(mapping, key=str.lower)


def _members(members: Any) -> list[Piece]:
    return _commas([[key, control(":"), *value] for key, value in members])


def _commas(parts: Sequence[Sequence[Piece]]) -> list[Piece]:
    return [piece for number, part in enumerate(parts) for piece in ([control(",")] if number else []) + list(part)]


def _schema(schema: Mapping[str, Any]) -> list[Piece]:
    """One property: description, what belongs to its type, and the type in capitals at the end."""
    members: list[tuple[Piece, list[Piece]]] = []
    if schema.get("description"):
        members.append((control("description"), _string(schema["description"])))
    if schema.get("enum"):
        members.append((control("enum"), _value(list(schema["enum"]))))
    if isinstance(schema.get("items"), Mapping) and schema["items"]:
        members.append((control("items"), [control("{"), *_schema(schema["items"]), control("}")]))
    if schema.get("nullable"):
        members.append((control("nullable"), [control("true")]))
    return _commas([[key, control(":"), *value] for key, value in [*members, *_object(schema)]])


def _object(schema: Mapping[str, Any]) -> list[tuple[Piece, list[Piece]]]:
    members: list[tuple[Piece, list[Piece]]] = []
    if properties := schema.get("properties"):
        each = [(_key(key), [control("{"), *_schema(properties[key]), control("}")]) for key in _sorted(properties)]
        members.append((control("properties"), [control("{"), *_members(each), control("}")]))
    if schema.get("required"):
        members.append((control("required"), _value(list(schema["required"]))))
    if schema.get("type"):
        members.append((control("type"), _string(str(schema["type"]).upper())))
    return members


@dataclass(frozen=True)
class Gemma4Tools:
    """Each tool as a declaration."""

    def write(self, tools: Sequence[Tool], source: str, date: str) -> Pieces:
        """The tools' description."""
        pieces: list[Piece] = []
        for tool in tools:
            pieces += [control("declaration:"), data(tool["name"]), control("{description:")]
            pieces += _string(str(tool.get("description", "")))
            if parameters := tool.get("parameters"):
                pieces += [control(",parameters:{"), *_members(_object(parameters)), control("}")]
            pieces.append(control("}"))
        return join(pieces)

    def jinja(self, date: str) -> str:
        """The same in Jinja."""
        return _TOOLS_IN_JINJA


@dataclass(frozen=True)
class Gemma4Calls:
    """Each call in its own pair of marks."""

    def write(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Pieces:
        """The calls."""
        pieces: list[Piece] = []
        for call in calls:
            pieces += [control("<|tool_call>call:"), data(call.name), *_value(call.arguments), control("<tool_call|>")]
        return join(pieces)

    def parse(self, text: str, tools: Sequence[Tool]) -> list[Call]:
        """The calls in an answer; words around them are skipped."""
        calls, end = [], 0
        while match := _CALL.search(text, end):
            end = match.end()
            try:
                arguments, end = _read(text, end - 1)
            except ValueError:
                continue
            calls.append(Call(match[1], arguments))
        return calls

    def jinja(self) -> str:
        """The same in Jinja."""
        return _CALLS_IN_JINJA


def _read(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start` and where it ends.  ValueError: there is none."""
    if text.startswith(_QUOTE, start):
        end = text.index(_QUOTE, start + len(_QUOTE))
        return text[start + len(_QUOTE) : end], end + len(_QUOTE)
    if text[start : start + 1] == "{":
        return _read_members(text, start + 1)
    if text[start : start + 1] == "[":
        items: list[Any] = []
        start += 1
        while text[start : start + 1] != "]":
            item, start = _read(text, start + (1 if items and text[start : start + 1] == "," else 0))
            items.append(item)
        return items, start + 1
    if found := decode(text, start):
        return found
    raise ValueError(f"no value at {text[start : start + 20]!r}")


def _read_members(text: str, start: int) -> tuple[dict[str, Any], int]:
    members: dict[str, Any] = {}
    while text[start : start + 1] != "}":
        start += 1 if members and text[start : start + 1] == "," else 0
        if word := _KEY.match(text, start):
            key, start = word[0], word.end()
        elif found := decode(text, start):
            key, start = found
        else:
            raise ValueError(f"no key at {text[start : start + 20]!r}")
        if text[start : start + 1] != ":":
            raise ValueError(f"no value for {key!r}")
        members[key], start = _read(text, start + 1)
    return members, start + 1


_VALUE_MACRO = """\
{%- macro gemma_value(value) -%}
{%- if value is string -%}{{- '<|"|>' ~ value ~ '<|"|>' -}}
{%- elif value is mapping -%}{{- '{' -}}{%- for key in value.keys() | sort -%}{{- ',' if not loop.first -}}
{{- key ~ ':' ~ gemma_value(value[key]) -}}{%- endfor -%}{{- '}' -}}
{%- elif value is iterable -%}{{- '[' -}}{%- for item in value -%}{{- ',' if not loop.first -}}
{{- gemma_value(item) -}}{%- endfor -%}{{- ']' -}}
{%- else -%}{{- value | tojson -}}{%- endif -%}
{%- endmacro -%}
"""

_TOOLS_IN_JINJA = (
    _VALUE_MACRO
    + """\
{%- macro gemma_object(schema, comma) -%}
{%- set ns = namespace(comma=comma) -%}
{%- if schema.get('properties') -%}
{{- ns.comma ~ 'properties:{' -}}{%- set ns.comma = ',' -%}
{%- for key in schema['properties'].keys() | sort -%}
{{- (',' if not loop.first else '') ~ key ~ ':{' ~ gemma_schema(schema['properties'][key]) ~ '}' -}}
{%- endfor -%}{{- '}' -}}
{%- endif -%}
{%- if schema.get('required') -%}
{{- ns.comma ~ 'required:' ~ gemma_value(schema['required']) -}}{%- set ns.comma = ',' -%}
{%- endif -%}
{%- if schema.get('type') -%}
{{- ns.comma ~ 'type:' ~ gemma_value(schema['type'] | string | upper) -}}
{%- endif -%}
{%- endmacro -%}
{%- macro gemma_schema(schema) -%}
{%- set ns = namespace(comma='') -%}
{%- if schema.get('description') -%}
{{- 'description:' ~ gemma_value(schema['description']) -}}{%- set ns.comma = ',' -%}
{%- endif -%}
{%- if schema.get('enum') -%}
{{- ns.comma ~ 'enum:' ~ gemma_value(schema['enum']) -}}{%- set ns.comma = ',' -%}
{%- endif -%}
{%- if schema.get('items') is mapping and schema.get('items') -%}
{{- ns.comma ~ 'items:{' ~ gemma_schema(schema.get('items')) ~ '}' -}}{%- set ns.comma = ',' -%}
{%- endif -%}
{%- if schema.get('nullable') -%}{{- ns.comma ~ 'nullable:true' -}}{%- set ns.comma = ',' -%}{%- endif -%}
{{- gemma_object(schema, ns.comma) -}}
{%- endmacro -%}
{%- for tool in tools -%}{%- set tool = tool.function if tool.function is defined else tool -%}
{{- 'declaration:' ~ tool['name'] ~ '{description:' ~ gemma_value(tool.get('description', '')) -}}
{%- if tool.get('parameters') -%}{{- ',parameters:{' ~ gemma_object(tool['parameters'], '') ~ '}' -}}{%- endif -%}
{{- '}' -}}
{%- endfor -%}
"""
)

_CALLS_IN_JINJA = (
    _VALUE_MACRO
    + """\
{%- for call in calls -%}{%- set call = call.function if call.function is defined else call -%}
{{- '<|tool_call>call:' ~ call['name'] ~ gemma_value(call['arguments']) ~ '<tool_call|>' -}}
{%- endfor -%}
"""
)
