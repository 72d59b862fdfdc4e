"""The docstrings under the fields -> help, one option's page, the docs page, the JSON schema.  Never read at load.

`ast` reads them from the sections' source, so that a field's help stands where the field is and costs nothing.
"""

import ast
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from tunesmith import catalog, log
from tunesmith.config import compat, rules
from tunesmith.config.own_words import OWN_WORDS
from tunesmith.config.schema import SECTIONS, fields
from tunesmith.config.shapes import BOUND_WORDS, Shape, number, shape_of

TITLES = {
    "model": "Model", "data": "Data", "tuning": "Tuning", "optim": "Optimizer", "train": "Run", "generate": "Answers",
    "export": "Export", "evaluate": "Evaluation",
}  # fmt: skip
COMMAND_SECTIONS = {
    "train": ("model", "data", "tuning", "optim", "train", "generate", "export", "evaluate"),
    "plan": ("model", "data", "tuning", "optim", "train", "generate", "export", "evaluate"),
    "chat": ("model", "data", "generate"),
    "export": ("model", "data", "export"),
    "eval": ("model", "data", "train", "generate", "evaluate"),
    "inspect": ("model", "data", "train"),
    "lint": ("model", "data", "train"),
    "estimate": ("model", "data", "tuning", "optim", "train", "generate"),
    "doctor": ("model", "tuning", "optim", "train"),
}
"""Command -> the sections it reads."""

USAGE = {
    "train": "tunesmith train [FILE...] [name=value...] [--name value...]",
    "plan": "tunesmith plan [FILE...] [name=value...] [--name value...]",
    "chat": "tunesmith chat MODEL [FILE...] [name=value...] [--name value...]",
    "export": "tunesmith export MODEL [FILE...] [name=value...] [--name value...]",
    "eval": "tunesmith eval MODEL [FILE...] [name=value...] [--name value...]",
    "inspect": "tunesmith inspect [FILE...] [name=value...] [--name value...]",
    "lint": "tunesmith lint [FILE...] [name=value...] [--name value...]",
    "estimate": "tunesmith estimate [FILE...] [name=value...] [--name value...]",
    "doctor": "tunesmith doctor [FILE...] [name=value...] [--name value...]",
}
RULES_OF_WRITING = (
    "FILE is YAML, JSON, or a pasted command; a later file wins over an earlier one, the command line over both. "
    "`--name value`, `--name=value` and `name=value` are the same; a flag is `--name`, `--no-name` or `--name False`; "
    "lists are separated by commas. `tunesmith explain NAME` tells all about one option."
)
NAMES_IN_CATALOG = {
    "optim": "optimizer",
    "lr_scheduler_type": "schedule",
    "template": "template",
    "report_to": "tracker",
    "stage": "stage",
    "finetuning_type": "tuning",
}
"""Options whose values are names of the catalog -> its kind."""


@cache
def docstrings() -> dict[str, str]:
    """Every option's help, whole, on one line."""
    found: dict[str, str] = {}
    for section in SECTIONS.values():
        for statement, following in _pairs(section):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found[statement.target.id] = _text(following)
    return found


@cache
def section_docstrings() -> dict[str, str]:
    """What each section is about, in one line."""
    return {name: _text(_module(section).body[0]) for name, section in SECTIONS.items()}


def _module(section: type) -> ast.Module:
    path = sys.modules[section.__module__].__file__
    assert path
    with open(path, encoding="utf-8") as stream:
        return ast.parse(stream.read())


def _pairs(section: type) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Each statement of a section's class with the one that follows it."""
    for node in _module(section).body:
        if isinstance(node, ast.ClassDef) and node.name == section.__name__:
            yield from zip(node.body, [*node.body[1:], None], strict=True)


def _text(statement: ast.stmt | None) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
    return ""


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def placeholder(shape: Shape) -> str:
    """What stands after an option's name in help: `N`, `NUMBER`, `a|b|c`, `TEXT,TEXT`, `JSON`; nothing for a flag."""
    if shape.item:
        one = "NAME" if shape.item.choices else placeholder(shape.item)
        return f"{one},{one}"
    if shape.scalars == {bool} and not shape.choices:
        return ""
    parts = [word for kind, word in PLACEHOLDERS.items() if kind in shape.scalars]
    parts += [str(choice) for choice in shape.choices] + (["JSON"] if shape.mapping else [])
    return "|".join(parts)


PLACEHOLDERS = {bool: "true|false", int: "N", float: "NUMBER", str: "TEXT"}


def default_words(name: str) -> str:
    """The default as a user would write it; empty when there is none."""
    match fields()[name][1].default:
        case None | "" | [] | {}:
            return ""
        case bool(default):
            return str(default).lower()
        case float(default):
            return f"{default:g}"
        case list(default):
            return ",".join(map(str, default))
        case default:
            return str(default)


def range_words(shape: Shape) -> str:
    """`at least 0, below 1`; empty when every value of the type is allowed.  Limits of the machine are left out."""
    limits = {kind: limit for kind, limit in shape.bounds.items() if abs(limit) < 2**31}
    return ", ".join(f"{BOUND_WORDS[kind]} {number(limit)}" for kind, limit in limits.items())


def help_for(command: str) -> str:
    """Every option of a command, by section: name, kind of value, default, first sentence."""
    lines = [USAGE[command], "", *_wrapped(RULES_OF_WRITING)]
    for word in OWN_WORDS.get(command, ()):
        lines += ["", "Its own words:"] if word is OWN_WORDS[command][0] else []
        lines += [f"  {word.shown}", *_wrapped(word.help, " " * 6)]
    unbuilt: list[str] = []
    for section in COMMAND_SECTIONS[command]:
        names = SECTIONS[section].model_fields
        built = [name for name in names if name not in rules.NOT_BUILT_AT_ALL]
        unbuilt += [name for name in names if name not in built]
        if built:
            lines += ["", *_wrapped(f"{TITLES[section]}: {section_docstrings()[section]}")]
            lines += [line for name in built for line in _help_lines(name)]
    return "\n".join([*lines, "", *_wrapped(f"Not built yet: {', '.join(unbuilt)}.")])


def _help_lines(name: str) -> list[str]:
    default = default_words(name)
    head = f"  --{name} {placeholder(shape_of(name))}".rstrip()
    return [f"{head} [{default}]" if default else head, *_wrapped(first_sentence(docstrings()[name]), " " * 6)]


def _wrapped(text: str, indent: str = "", later: str | None = None) -> list[str]:
    """Lines of the terminal's width, at most 120 characters."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    return textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=indent if later is None else later,
        break_on_hyphens=False,
        break_long_words=False,
    )


def page(name: str) -> str:
    """All about one option: help, type, range, default, other spellings, names it may take."""
    section = fields()[name][0]
    shape = shape_of(name)
    facts = {
        "type": shape.words(),
        "range": range_words(shape),
        "default": default_words(name) or "none",
        "also": ", ".join(compat.spellings(name)),
        "names": ", ".join(catalog.names(NAMES_IN_CATALOG[name])) if name in NAMES_IN_CATALOG else "",
        "not built": _not_built(name),
        "section": f"{section}: {section_docstrings()[section]}",
    }
    lines = [name, *_wrapped(docstrings()[name]), ""]
    for fact, text in facts.items():
        if text:
            lines += _wrapped(f"{fact + ':':10} {text}", later=" " * 11)
    return "\n".join(lines)


def _not_built(name: str) -> str:
    if name in rules.NOT_BUILT_AT_ALL:
        return "anything but the default, so far"
    values = rules.NOT_BUILT.get(name, ())
    return ", ".join(str(value).lower() for value in values)


def schema() -> dict[str, Any]:
    """The JSON schema of a config file: flat keys, other spellings too, nothing else allowed."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for section in SECTIONS.values():
        part = section.model_json_schema()
        definitions |= part.get("$defs", {})
        for name, declared in part["properties"].items():
            declared.pop("title", None)
            properties[name] = _lenient(name, declared) | {"description": docstrings()[name]}
    for name in list(properties):
        for spelling in compat.spellings(name):
            properties[spelling] = _spelling_schema(spelling, name, properties[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tunesmith",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"$defs": definitions} if definitions else {}),
    }


def _lenient(name: str, declared: dict[str, Any]) -> dict[str, Any]:
    """Lists and mappings may also be written as text; numbers of a list need no list."""
    shape = shape_of(name)
    if not shape.item and not shape.mapping:
        return declared
    default = {"default": declared.pop("default")} if "default" in declared else {}
    return {"anyOf": [declared, {"type": "string"}]} | default


def _spelling_schema(spelling: str, name: str, declared: dict[str, Any]) -> dict[str, Any]:
    description = f"Another spelling of {name}. {docstrings()[name]}"
    if spelling in compat.SWITCHES:
        switch = compat.SWITCHES[spelling]
        return {"type": "boolean", "description": f"true: {name} {json.dumps(switch.on)}. {docstrings()[name]}"}
    if spelling in compat.RATIOS:
        limits = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
        return limits | {"description": f"{name} as a fraction. {docstrings()[name]}"}
    return declared | {"description": description}


def markdown() -> str:
    """The docs page of every option, by section."""
    lines = ["# Parameters", "", RULES_OF_WRITING]
    for section, cls in SECTIONS.items():
        lines += ["", f"## {TITLES[section]}", "", section_docstrings()[section]]
        lines += ["", "| option | type | default | what it does |", "|---|---|---|---|"]
        lines += [_markdown_row(name) for name in cls.model_fields]
    return "\n".join(lines) + "\n"


def _markdown_row(name: str) -> str:
    shape = shape_of(name)
    kind = ", ".join(filter(None, (shape.words(), range_words(shape))))
    others = compat.spellings(name)
    also = f" Also: {', '.join(f'`{one}`' for one in others)}." if others else ""
    missing = f" Not built yet: {_not_built(name)}." if _not_built(name) else ""
    default = default_words(name)
    cells = (f"`{name}`", kind, f"`{default}`" if default else "", docstrings()[name] + also + missing)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def explain_command(words: list[str]) -> int:
    """Print one option's page, or all options by name; `--markdown` and `--foreign` print pages of the docs."""
    if words == ["--markdown"]:
        log.say(markdown().rstrip())
        return 0
    if words == ["--foreign"]:
        from tunesmith.config import foreign_page

        log.say(foreign_page.markdown().rstrip())
        return 0
    if not words:
        for section, cls in SECTIONS.items():
            log.say(f"{TITLES[section]}: {section_docstrings()[section]}")
            log.say(
                "\n".join(textwrap.wrap(", ".join(cls.model_fields), 100, initial_indent="  ", subsequent_indent="  "))
            )
        return 0
    for index, word in enumerate(words):
        log.say(("\n" if index else "") + page(_option(word)))
    return 0


def _option(word: str) -> str:
    name = compat.canonical(word.lstrip("-").replace("-", "_"))
    if name not in fields():
        known = [*fields(), *compat.CANONICAL, *compat.SWITCHES]
        raise log.OptionError(f"explain: unknown option '{word}'{catalog.did_you_mean(name, known)}")
    return name


def schema_command(words: list[str]) -> int:
    """Print the JSON schema."""
    if words:
        raise log.OptionError(f"schema: takes no words, got '{words[0]}'")
    log.say(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
