"""What stands before a Jinja chat template when it is saved, so that it says by itself what a run's options said.  Knows
no conversation."""

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.templates.dialects.prompts import quoted
from tunesmith.templates.sandbox import FIXED_DATE

_DATES = re.compile(r"strftime_now\(\s*(?:'([^']*)'|\"([^\"]*)\")\s*\)")


def with_preface(
    source: str, system: str | None, variables: Mapping[str, Any], *, fold_system: bool = False, none_said: bool = False
) -> str:
    """The template with a system prompt for conversations without one, values for variables that nobody gives, and the
    date of training instead of a clock; the template itself when there is nothing to say.

    `fold_system`: the template has no system role, so what the system says goes before the first user's words;
    `none_said`: it wants null for the words of an answer that only calls, which transformers leaves out."""
    lines = [_variable(name, value) for name, value in variables.items()]
    if fold_system:
        lines.append(_folded(system))
    elif system is not None:
        lines.append(_first(system))
    if none_said:
        lines.append(_each_message("{%- set message = dict(message, content=message['content'] or none) -%}"))
    if "strftime_now" in source:
        lines.append(_date(source))
    return "".join(lines) + "{{- '' }}" + source if lines else source


def _variable(name: str, value: Any) -> str:
    return f"{{%- set {name} = {name} if {name} is defined else {_literal(value)} -%}}\n"


def _first(system: str) -> str:
    return (
        "{%- if not messages or messages[0]['role'] not in ('system', 'developer') -%}"
        f"{{%- set messages = [{{'role': 'system', 'content': {quoted(system)}}}] + messages -%}}{{%- endif -%}}\n"
    )


def _folded(system: str | None) -> str:
    return (
        f"{{%- set preface = namespace(system={quoted(system or '')}) -%}}"
        "{%- if messages and messages[0]['role'] in ('system', 'developer') -%}"
        "{%- set preface.system = messages[0]['content'] -%}{%- set messages = messages[1:] -%}{%- endif -%}\n"
    ) + _each_message(
        "{%- if preface.system and message['role'] == 'user' and message['content'] is string -%}"
        "{%- set message = dict(message, content=preface.system ~ '\\n\\n' ~ message['content']) -%}"
        "{%- set preface.system = '' -%}{%- endif -%}"
    )


def _each_message(change: str) -> str:
    """`change` applied to every `message`."""
    return (
        "{%- set changed = namespace(messages=[]) -%}{%- for message in messages -%}"
        f"{change}{{%- set changed.messages = changed.messages + [message] -%}}{{%- endfor -%}}"
        "{%- set messages = changed.messages -%}\n"
    )


def _date(source: str) -> str:
    """The function that tells the date, telling one date in every form in which the template asks for it."""
    forms = dict.fromkeys(["%d %b %Y", *(one or other for one, other in _DATES.findall(source))])
    dates = ", ".join(f"{quoted(form)}: {quoted(FIXED_DATE.strftime(form))}" for form in forms)
    return f"{{%- macro strftime_now(form) -%}}{{{{- {{{dates}}}.get(form, {quoted(str(FIXED_DATE))}) -}}}}{{%- endmacro -%}}\n"


def _literal(value: Any) -> str:
    """A JSON value as a Jinja expression."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(str(key))}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return str(value)
