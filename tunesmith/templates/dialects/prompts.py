"""How tools are told in a system prompt: one shape for the families that show JSON, one for the plain list.  Knows no
family."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.templates.template import Piece, Pieces, control, data, join
from tunesmith.templates.tools import Tool, dumps, wrapped


def quoted(text: str) -> str:
    """`text` as a Jinja string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


@dataclass(frozen=True)
class JsonTools:
    """Tools as JSON: `head`, then each tool between `before` and `after`, then `tail`.

    `{name}` in `before` is the tool's name, `{date}` in `head` the template's date.  `shape`: `wrapped` as OpenAI
    objects or `bare`, one by one or as one `list`; `source`: the row's own text, untouched.
    """

    head: str
    tail: str
    before: str = ""
    after: str = ""
    shape: Literal["wrapped", "bare", "wrapped list", "bare list", "source"] = "wrapped"
    indent: int | None = None

    def write(self, tools: Sequence[Tool], source: str, date: str) -> Pieces:
        """The tools' description."""
        pieces = [control(self.head.replace("{date}", date))]
        shown: list[Any] = [wrapped(tool) for tool in tools] if self.shape.startswith("wrapped") else list(tools)
        if self.shape == "source":
            pieces.append(data(source))
        elif self.shape.endswith("list"):
            pieces.append(data(dumps(shown, self.indent)))
        else:
            for tool, form in zip(tools, shown, strict=True):
                before, name, rest = self.before.partition("{name}")
                pieces += [control(before), data(tool["name"] if name else ""), control(rest)]
                pieces += [data(dumps(form, self.indent)), control(self.after)]
        return join([*pieces, control(self.tail)])

    def jinja(self, date: str) -> str:
        """The same in Jinja; where the row's own text is shown, `tools` as they are given."""
        head, tail = (f"{{{{- {quoted(text)} -}}}}" for text in (self.head.replace("{date}", date), self.tail))
        to_json = f"tojson(indent={self.indent})" if self.indent else "tojson"
        if self.shape == "source":
            return f"{head}{{{{- tools | tojson -}}}}{tail}"
        function = "(tool.function if tool.function is defined else tool)"
        shown = f"{{'type': 'function', 'function': {function}}}" if self.shape.startswith("wrapped") else function
        if self.shape.endswith("list"):
            each = f"{{{{- ', ' if not loop.first }}}}{{{{- {shown} | {to_json} -}}}}"
            return f"{head}{{{{- '[' -}}}}{{%- for tool in tools -%}}{each}{{%- endfor -%}}{{{{- ']' -}}}}{tail}"
        before, name, rest = self.before.partition("{name}")
        words = quoted(before) + (f" ~ {function}['name'] ~ {quoted(rest)}" if name else "")
        each = f"{{{{- {words} ~ ({shown} | {to_json}) ~ {quoted(self.after)} -}}}}"
        return f"{head}{{%- for tool in tools -%}}{each}{{%- endfor -%}}{tail}"


@dataclass(frozen=True)
class ListedTools:
    """Tools as a plain list of names, descriptions and arguments: what models without a format of their own get."""

    head: str
    tail: str
    """`{names}`: the tools' names."""

    def write(self, tools: Sequence[Tool], source: str, date: str) -> Pieces:
        """The tools' description."""
        pieces = [control(self.head)]
        for tool in tools:
            pieces += [control("> Tool Name: "), data(tool["name"])]
            pieces += [control("\nTool Description: "), data(str(tool.get("description", "")))]
            pieces += [control("\nTool Args:\n"), *_listed_arguments(tool.get("parameters") or {}), control("\n")]
        before, _, after = self.tail.partition("{names}")
        return join([*pieces, control(before), data(", ".join(tool["name"] for tool in tools)), control(after)])

    def jinja(self, date: str) -> str:
        """The same in Jinja."""
        before, _, after = (quoted(text) for text in self.tail.partition("{names}"))
        return (
            f"{{{{- {quoted(self.head)} -}}}}"
            "{%- set names = namespace(all='') -%}"
            "{%- for tool in tools -%}{%- set tool = tool.function if tool.function is defined else tool -%}"
            "{%- set names.all = names.all ~ (', ' if not loop.first else '') ~ tool['name'] -%}"
            "{{- '> Tool Name: ' ~ tool['name'] ~ '\\nTool Description: ' ~ tool.get('description', '') -}}"
            "{{- '\\nTool Args:\\n' -}}"
            "{%- set schema = tool.get('parameters') or {} -%}"
            "{%- for name, argument in (schema.get('properties') or {}).items() -%}"
            "{{- '  - ' ~ name ~ ' (' ~ argument.get('type', '') -}}"
            "{{- ', required' if name in (schema.get('required') or []) -}}"
            "{{- '): ' ~ argument.get('description', '') -}}"
            "{%- if argument.get('enum') -%}"
            "{{- ', should be one of [' ~ (argument.get('enum') | join(', ')) ~ ']' -}}{%- endif -%}"
            "{%- if argument.get('items') -%}"
            "{{- ', where each item should be ' ~ argument.get('items').get('type', '') -}}{%- endif -%}"
            "{{- '\\n' -}}"
            "{%- endfor -%}{{- '\\n' -}}{%- endfor -%}"
            f"{{{{- {before} ~ names.all ~ {after} -}}}}"
        )


def _listed_arguments(schema: dict[str, Any]) -> list[Piece]:
    pieces = []
    for name, argument in (schema.get("properties") or {}).items():
        required = ", required" if name in (schema.get("required") or []) else ""
        pieces += [control("  - "), data(name), control(" ("), data(str(argument.get("type", ""))), control(required)]
        pieces += [control("): "), data(str(argument.get("description", "")))]
        if argument.get("enum"):
            values = ", ".join(str(value) for value in argument["enum"])
            pieces += [control(", should be one of ["), data(values), control("]")]
        if argument.get("items"):
            pieces += [control(", where each item should be "), data(str(argument["items"].get("type", "")))]
        pieces.append(control("\n"))
    return pieces
