"""What values an option takes, read from its declaration, and how its text is read.  Knows no option by name.

The same shape reads the command line, words an error, and fills help and completion.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from tunesmith.config.schema import fields

TRUE, FALSE, NOTHING = ("true", "1", "yes"), ("false", "0", "no"), ("none", "null")
SWITCH_WORDS = {"on": "true", "y": "true", "t": "true", "off": "false", "n": "false", "f": "false"}
"""What people write for truth elsewhere, and what they are told to write here."""

WHOLE = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.?(inf|nan)", re.IGNORECASE)
PLAIN_NAMES = re.compile(r"[\w.-]+(\s*,\s*[\w.-]+)*")
LONGEST_SHOWN = 60
MOST_DIGITS = 30


class Unreadable(ValueError):
    """A text that is no value of its option; the message goes after `must be ..., got ...`."""


@dataclass(frozen=True)
class Shape:
    """The values of one option: scalar types, fixed choices, a list of another shape, a mapping, or nothing."""

    scalars: frozenset[type] = frozenset()
    choices: tuple[Any, ...] = ()
    item: "Shape | None" = None
    mapping: bool = False
    optional: bool = False
    bounds: dict[str, float] = field(default_factory=dict)

    def is_switch(self) -> bool:
        """Whether `--name` alone means true."""
        return bool in self.scalars

    def words(self) -> str:
        """What a value must be, such as `a whole number or auto`."""
        if self.item:
            return f"a list: each {self.item.words()}" if self.item.choices else "a list, or text with commas"
        parts = [word for kind, word in SCALAR_WORDS.items() if kind in self.scalars]
        if self.mapping:
            parts.append("a mapping")
        if self.choices:
            listed = ", ".join(map(str, self.choices))
            parts.append(listed if self.scalars else f"one of {listed}")
        return " or ".join(parts)


SWITCH = Shape(scalars=frozenset({bool}))
"""The shape of a flag."""

SCALAR_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@cache
def shape_of(name: str) -> Shape:
    """The shape of an option, by its flat name."""
    info = fields()[name][1]
    return _merge(_shape(info.annotation), Shape(bounds=_bounds(info.metadata)))


def _shape(annotation: Any) -> Shape:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        shape = Shape()
        for branch in arguments:
            shape = _merge(shape, _shape(branch))
        return shape
    if origin is Annotated:
        return _merge(_shape(arguments[0]), Shape(bounds=_bounds(arguments[1:])))
    if origin is Literal:
        return Shape(choices=arguments)
    if origin is list:
        return Shape(item=_shape(arguments[0]))
    if origin is dict:
        return Shape(mapping=True)
    return Shape(optional=True) if annotation is NoneType else Shape(scalars=frozenset({annotation}))


def _merge(a: Shape, b: Shape) -> Shape:
    return Shape(
        scalars=a.scalars | b.scalars,
        choices=a.choices + b.choices,
        item=a.item or b.item,
        mapping=a.mapping or b.mapping,
        optional=a.optional or b.optional,
        bounds=a.bounds | b.bounds,
    )


def _bounds(metadata: Any) -> dict[str, float]:
    """`{"ge": 1, "lt": 9}` of pydantic's annotations."""
    found: dict[str, Any] = {}
    for one in metadata:
        for bound in one.metadata if isinstance(one, FieldInfo) else (one,):
            match bound:
                case Ge(limit):
                    found["ge"] = limit
                case Gt(limit):
                    found["gt"] = limit
                case Le(limit):
                    found["le"] = limit
                case Lt(limit):
                    found["lt"] = limit
    return found


BOUND_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def number(limit: float) -> str:
    """A limit as a user would write it."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}".replace("e+0", "e")


def read(text: str, shape: Shape, *, names_only: bool = False) -> Any:
    """The value that `text` (a command line's, or a YAML text where a list or mapping belongs) stands for.

    `names_only`: commas separate plain names only, so that a regular expression stays whole.  Raises Unreadable.
    """
    if shape.optional and text.lower() in NOTHING:
        return None
    if shape.item:
        kind = (int, float) if float in shape.item.scalars else (str,)
        return [_scalar(part, shape.item) for part in _parts(text, names_only, kind)]
    if shape.mapping and (str not in shape.scalars or text.lstrip().startswith("{")):
        return _mapping(text)
    return _scalar(text, shape)


def _scalar(text: str, shape: Shape) -> Any:
    for choice in shape.choices:
        if text == str(choice):
            return choice
    if bool in shape.scalars and text.lower() in TRUE + FALSE:
        return text.lower() in TRUE
    if int in shape.scalars and WHOLE.fullmatch(text) and len(text) <= MOST_DIGITS:
        return int(text)
    if float in shape.scalars and NUMBER.fullmatch(text) and len(text) <= MOST_DIGITS:
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if str in shape.scalars:
        return text
    raise Unreadable(hint(text, shape))


def _parts(text: str, names_only: bool, kind: tuple[type, ...]) -> list[str]:
    """The texts between commas, or those of a JSON list of values of `kind`."""
    if text.startswith("[") and text.endswith("]"):
        try:
            listed = json.loads(text)
        except ValueError:
            listed = None
        if isinstance(listed, list) and all(type(one) in kind for one in listed):
            return [str(one) for one in listed]
    if names_only and not PLAIN_NAMES.fullmatch(text):
        return [text]
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise Unreadable("; there is nothing before or after one of its commas")
    return parts


def _mapping(text: str) -> dict[str, Any]:
    """JSON, or `key=value,key=value` whose values are JSON scalars or plain text."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except Unreadable:
            raise
        except (ValueError, RecursionError) as problem:
            raise Unreadable(f"; it is not valid JSON: {problem}") from problem
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise Unreadable("; write JSON, or key=value,key=value")
    return _unique([(key.strip(), _guess(value.strip())) for key, _, value in pairs])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise Unreadable(f"; it has the key '{twice[0]}' twice")
    return dict(pairs)


def _guess(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in NOTHING:
        return None
    if len(text) > MOST_DIGITS or not NUMBER.fullmatch(text):
        return text
    return int(text) if WHOLE.fullmatch(text) else float(text)


def hint(value: Any, shape: Shape) -> str:
    """What to write instead of a value of the wrong kind; empty when there is nothing to say."""
    if isinstance(value, str):
        return _hint_for_text(value, shape)
    if isinstance(value, bool) and bool not in shape.scalars:
        return ""
    if isinstance(value, float) and int in shape.scalars and value == value // 1:
        return f"; write {value:.0f}" if abs(value) < 1e15 else ""
    if str in shape.scalars and not isinstance(value, list | dict | NoneType):
        return "; put quotes around it"
    return ""


def _hint_for_text(text: str, shape: Shape) -> str:
    if bool in shape.scalars and (meant := SWITCH_WORDS.get(text.lower())):
        return f"; write {meant}"
    numeric = {int, float} & shape.scalars
    if numeric and re.fullmatch(r"[-+]?[0-9]+,[0-9]+", text):
        return "; write the decimal point as '.'"
    if int in shape.scalars and NUMBER.fullmatch(text) and not WHOLE.fullmatch(text) and len(text) <= MOST_DIGITS:
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        return f"; write {value:.0f}" if abs(value) < 1e15 and value == value // 1 else ""
    return ""


def shown(value: Any) -> str:
    """A value as an error shows it: as a YAML file would have it, on one line, shortened."""
    if isinstance(value, str):
        text = f"'{value[:LONGEST_SHOWN]}'"
    elif value is None or isinstance(value, bool):
        text = {None: "nothing", True: "true", False: "false"}[value]
    else:
        try:
            text = str(value)
        except ValueError:
            return "a number of thousands of digits"
    text = "".join(one if one.isprintable() else " " for one in text)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 4] + "..." + ("'" if text[0] == "'" else "")
