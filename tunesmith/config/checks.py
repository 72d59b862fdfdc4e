"""One option as written -> its checked value, or the sentence that says what is wrong.  Knows no file and no layer.

Pydantic judges every value; the words are ours.
"""

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tunesmith import catalog, log
from tunesmith.config import compat
from tunesmith.config.schema import SECTIONS, fields
from tunesmith.config.shapes import BOUND_WORDS, NOTHING, SWITCH, Shape, Unreadable, hint, number, read, shape_of, shown
from tunesmith.config.written import Problems, Written

MAY_BE_EMPTY = ("default_system",)
OF_SEVERAL_LINES = ("default_system", "prompt")
"""Texts that may hold line breaks.  In a name or a path they are an accident that splits the lines of every log."""

DEEPEST = 50
"""Levels of lists and mappings within one option."""

LONGEST_NAME_BYTES, LONGEST_PATH_BYTES = 255, 4095
"""What file systems take: of a file's name, and of a path."""

REGULAR_EXPRESSIONS = ("lora_target",)
NOTHING_SET: tuple[Any, ...] = ("", [], {}, ["none"])
"""Defaults that mean that nothing is set, so that writing nothing is writing them."""

RATIO = Shape(scalars=frozenset({float}), bounds={"ge": 0, "lt": 1})


@dataclass(frozen=True, slots=True)
class Value:
    """A checked value.  `denies`: it only says what the option is not (`bf16: false`), and gives way to a true one."""

    value: Any
    written: Written
    denies: frozenset[str] = frozenset()


def check(name: str, written: Written, problems: Problems) -> Value | None:
    """The checked value of the option `name`; None when what is written says nothing.  Raises Unreadable."""
    if written.name in compat.SWITCHES:
        return _switch(written)
    if written.name in compat.RATIOS:
        _check_ratio(written, _typed(written, written.value, RATIO))
    shape, default = shape_of(name), fields()[name][1].default
    value = written.value
    if _says_nothing(written) and not shape.optional and default in NOTHING_SET:
        return None
    if isinstance(value, str):
        value = compat.RESPELLED.get(name, {}).get(value, value)
    value = _typed(written, value, shape, names_only=name in REGULAR_EXPRESSIONS)
    if name in compat.CASELESS:
        value = _lower(value)
    _check_emptiness(name, value, default)
    _check_inside(name, value)
    _validate(name, value, shape, written)
    return Value(_folders(name, value, problems), written)


def _says_nothing(written: Written) -> bool:
    """`none` on the command line; null, an empty text or an empty list in a file."""
    if written.is_text:
        return isinstance(written.value, str) and written.value.lower() in NOTHING
    return written.value in (None, "", [])


def _lower(value: Any) -> Any:
    if isinstance(value, list):
        return [_lower(one) for one in value]
    return value.lower() if isinstance(value, str) else value


def _switch(written: Written) -> Value | None:
    switch = compat.SWITCHES[written.name]
    on = _typed(written, written.value, SWITCH)
    if not isinstance(on, bool):
        raise Unreadable(f"must be true or false, got {shown(on)}")
    value = switch.on if on else switch.off
    if value is None:
        return None
    weak = not on and written.name in compat.PRECISIONS
    return Value(value, written, frozenset({written.name}) if weak else frozenset())


def _typed(written: Written, value: Any, shape: Shape, names_only: bool = False) -> Any:
    """Text becomes what the shape asks for; a value of a file stays, but for a list or mapping written as text."""
    if value == "" and str not in shape.scalars:
        raise Unreadable("is empty; write a value")
    try:
        if isinstance(value, str) and (written.is_text or shape.item or shape.mapping):
            return read(value, shape, names_only=names_only)
        if isinstance(value, list) and written.is_text:
            return [item for one in value for item in read(one, shape, names_only=names_only)]
    except Unreadable as problem:
        choices = shape.item.choices if shape.item else shape.choices
        guess = catalog.did_you_mean(value, map(str, choices)) if isinstance(value, str) else ""
        raise Unreadable(f"must be {shape.words()}, got {shown(value)}{problem}{guess}") from problem
    return [value] if shape.item and isinstance(value, int | float) else value


def _check_emptiness(name: str, value: Any, default: Any) -> None:
    if isinstance(value, str) and not value.strip() and name not in MAY_BE_EMPTY:
        raise Unreadable("is empty; write a value")
    if value == [] and default:
        raise Unreadable("is an empty list")
    for one in value if isinstance(value, list) else [value]:
        if isinstance(value, list) and isinstance(one, str) and not one.strip():
            raise Unreadable("holds an empty text")


def _check_inside(name: str, value: Any, inner: bool = False, depth: int = 0) -> None:
    """Refuse what no file, log or tensor could hold: half characters, control characters, numbers without end, paths that
    are too long.  `inner`: the value lies within a mapping, whose texts may have several lines."""
    if depth > DEEPEST:
        raise Unreadable("is nested too deeply")
    if isinstance(value, dict):
        for one in (*value, *value.values()):
            _check_inside(name, one, True, depth + 1)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_inside(name, one, inner, depth + 1)
    elif isinstance(value, float) and inner and not math.isfinite(value):
        raise Unreadable(f"holds {shown(value)}, which is no finite number")
    elif isinstance(value, str):
        _check_text(value, may_break=inner or name in OF_SEVERAL_LINES)
        if name in compat.PATHS and not inner:
            _check_path(value)


def _check_text(text: str, may_break: bool) -> None:
    if "\0" in text:
        raise Unreadable("holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise Unreadable("holds bytes that are no UTF-8 text, or half a character (a lone surrogate)") from problem
    if not may_break and (found := re.search(r"[\x01-\x1f\x7f\x85\u2028\u2029]", text)):
        raise Unreadable(f"holds a control character, {ascii(found[0])[1:-1]}")


def _check_path(text: str) -> None:
    if "://" in text:
        return
    longest = max(len(part.encode()) for part in text.split(os.sep))
    if longest > LONGEST_NAME_BYTES or len(text.encode()) > LONGEST_PATH_BYTES:
        raise Unreadable(f"is too long for a path: {len(text.encode()):,} bytes, a name in it {longest:,}")
    if text.startswith("~") and os.path.expanduser(text) == text and not os.path.exists(text):
        raise Unreadable(f"there is no user {text.split(os.sep)[0][1:]!r} here, as '~' asks for")


def _validate(name: str, value: Any, shape: Shape, written: Written) -> None:
    """Pydantic judges; the words are ours."""
    section = SECTIONS[fields()[name][0]]
    try:
        section.model_validate({name: value})
    except ValidationError as problem:
        if value is None:
            raise Unreadable(f"has no value; must be {shape.words()}") from problem
        errors = problem.errors(include_url=False)
        for error in errors:
            got = shown(error["input"]) if shape.item else written.seen()
            if bound := next((word for kind, word in BOUND_WORDS.items() if kind in error.get("ctx", {})), None):
                limit = next(iter(error["ctx"].values()))
                raise Unreadable(f"must be {bound} {number(limit)}, got {got}") from problem
            if error["type"] == "finite_number":
                raise Unreadable(f"must be a finite number, got {got}") from problem
        raise Unreadable(_wrong_kind(value, shape, errors[0]["input"])) from problem


def _wrong_kind(value: Any, shape: Shape, inner: Any) -> str:
    if shape.item and isinstance(value, list):
        text = f"each must be {shape.item.words()}, got {shown(inner)}"
        guess = catalog.did_you_mean(inner, shape.item.choices) if isinstance(inner, str) else hint(inner, shape.item)
        return text + guess
    if isinstance(value, str):
        more = _without_quotes(value, shape) or catalog.did_you_mean(value, map(str, shape.choices))
        return f"must be {shape.words()}, got {'' if shape.choices else 'the text '}{shown(value)}{more}"
    return f"must be {shape.words()}, got {shown(value)}{hint(value, shape)}"


def _without_quotes(text: str, shape: Shape) -> str:
    """A number or boolean that is text only because of its quotes (or because YAML 1.2 knows no `yes`)."""
    try:
        value = read(text, shape)
    except Unreadable as problem:
        return str(problem)
    return f"; write {str(value).lower()}" if isinstance(value, bool) else "; remove the quotes"


def _check_ratio(written: Written, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"must be {RATIO.words()}, got {shown(value)}")
    if not RATIO.bounds["ge"] <= value < RATIO.bounds["lt"]:
        raise Unreadable(f"must be at least 0 and below 1, got {written.seen()}")


def _folders(name: str, value: Any, problems: Problems) -> Any:
    """Backslashes of another system's paths become folders, with a note."""
    if name not in compat.PATHS or os.sep == "\\":
        return value
    if isinstance(value, list):
        return [_folders(name, one, problems) for one in value]
    if not isinstance(value, str) or "\\" not in value or os.path.exists(value):
        return value
    changed = value.replace("\\", "/")
    problems.remark(log.note, name, f"backslashes separate folders: {changed}")
    return changed
