"""The words of a command -> options as written, and the words that are none.  Knows the grammar of the command line:

`--name value`, `--name=value`, `name=value`, `--flag`, `--flag False`, `--no-flag`, `--list a b`; dashes are
underscores.
"""

import os
import re
from collections import deque

from tunesmith.catalog import nearest
from tunesmith.config import compat, foreign
from tunesmith.config.schema import fields
from tunesmith.config.shapes import FALSE, SWITCH, TRUE, Shape, shape_of
from tunesmith.config.written import Place, Problems, Word, Written

OPTION = re.compile(r"--[A-Za-z]")
PAIR = re.compile(r"([A-Za-z_][\w-]*)=(.*)", re.DOTALL)
LONE_DASH = re.compile(r"-[A-Za-z]")
DASHES = "‐‑‒–—―−－﹣﹘⸺⸻⁃➖ー"
"""What word processors, chat programs and Asian keyboards make of a dash, and what looks like one."""

TYPOGRAPHIC_DASH = re.compile(rf"-*[{DASHES}][-{DASHES}]*([A-Za-z][\w-]*)")
LONGEST_NAME = 80
"""Letters of a name in which the nearest known one is looked for."""

CONFIG_FILE = re.compile(r".*\.ya?ml", re.IGNORECASE)

ANYTHING = Shape(scalars=frozenset({bool, str}))


def known_names() -> list[str]:
    """Every spelling of every option that is a field here."""
    return [*fields(), *compat.CANONICAL, *compat.SWITCHES, *compat.RATIOS]


def is_known(name: str) -> bool:
    """Whether some option, also one without effect here, is spelled so."""
    return compat.canonical(name) in fields() or name in foreign.INERT or name in foreign.UNBUILT


def report_unknown(shown: str, name: str, place: Place, problems: Problems) -> None:
    """Note an option that does not exist, and the one that was probably meant."""
    dashes = "--" if shown.startswith("--") else ""
    if not problems.are_many and (owner := _owner(name)):
        problems.add(place, f"unknown option '{shown}'; it is a value of '{dashes}{owner}'", owner)
        return
    meant = None if problems.are_many else nearest(name[:LONGEST_NAME], known_names())
    guess = f"; did you mean '{dashes}{meant}'?" if meant else ""
    problems.add(place, f"unknown option '{shown}'{guess}", compat.canonical(meant or ""))


def _owner(value: str) -> str | None:
    """The one option that has this fixed value."""
    shapes = {name: shape_of(name) for name in fields()}
    owners = [name for name, shape in shapes.items() if value in (shape.item or shape).choices]
    return owners[0] if len(owners) == 1 else None


def spelled_shape(name: str) -> Shape:
    """The shape of what is written after this spelling."""
    if name in compat.SWITCHES:
        return SWITCH
    canonical = compat.canonical(name)
    return shape_of(canonical) if canonical in fields() else ANYTHING


def read_words(words: list[Word], problems: Problems) -> tuple[list[Written], list[Word]]:
    """Options in order, and the words that belong to none: files, a model, or mistakes."""
    rest = deque(words)
    written: list[Written] = []
    others: list[Word] = []
    while rest:
        word = rest.popleft()
        if dashed := TYPOGRAPHIC_DASH.match(word.text):
            text = f"'{word.text}' begins with a typographic dash; write '--{dashed[1]}'"
            problems.add(word.place, text, compat.canonical(dashed[1].replace("-", "_")))
            _skip_value(rest)
        elif OPTION.match(word.text):
            option = _option(word, rest, problems)
            written += [option] if option else []
        elif LONE_DASH.match(word.text):
            name = word.text[1:].partition("=")[0].replace("-", "_")
            text = f"'{word.text}': options begin with two dashes; write '-{word.text}'"
            problems.add(word.place, text, compat.canonical(name))
            _skip_value(rest)
        elif (pair := PAIR.fullmatch(word.text)) and not _is_file(word.text):
            name = pair[1].replace("-", "_")
            if is_known(name):
                written.append(Written(name, pair[2], word.place, pair[1], is_text=True))
            else:
                report_unknown(pair[1], name, word.place, problems)
        else:
            others.append(word)
    return _once(written, problems), others


def _option(word: Word, rest: deque[Word], problems: Problems) -> Written | None:
    """The option that `word` begins; its value is taken from `rest`."""
    shown, equals, text = word.text.partition("=")
    name = shown[2:].replace("-", "_")
    if not is_known(name):
        return _negated(word, shown, name, bool(equals), rest, problems)
    if equals:
        return Written(name, text, word.place, shown, is_text=True)
    shape = spelled_shape(name)
    if rest and rest[0].text.startswith("="):
        value = rest.popleft().text[1:] or (rest.popleft().text if rest else "...")
        problems.add(word.place, f"{shown}: no blanks around '='; write {shown}={value}", compat.canonical(name))
        return None
    if shape.item:
        values = _list_values(rest)
        if not values:
            problems.add(word.place, f"{shown}: needs a value", compat.canonical(name))
            return None
        return Written(name, values[0] if len(values) == 1 else values, word.place, shown, is_text=True)
    if shape.is_switch() and not (rest and _belongs_to_switch(rest[0].text, shape)):
        return Written(name, "true", word.place, shown, is_text=True)
    if not rest or _begins_option(rest[0].text):
        more = f"; write {shown}=... for text that begins with dashes" if rest and str in shape.scalars else ""
        problems.add(word.place, f"{shown}: needs a value{more}", compat.canonical(name))
        return None
    return Written(name, rest.popleft().text, word.place, shown, is_text=True)


def _negated(
    word: Word, shown: str, name: str, has_value: bool, rest: deque[Word], problems: Problems
) -> Written | None:
    """`--no-flag`, or an option that does not exist."""
    positive = name.removeprefix("no_")
    if positive == name or not is_known(positive):
        report_unknown(shown, name, word.place, problems)
        if not has_value:
            _skip_value(rest)
        return None
    if not spelled_shape(positive).is_switch():
        problems.add(word.place, f"{shown}: {positive} is no switch; write --{positive} VALUE")
        if not has_value:
            _skip_value(rest)
        return None
    if has_value:
        problems.add(word.place, f"{shown}: takes no value")
        return None
    return Written(positive, "false", word.place, shown, is_text=True)


def _begins_option(text: str) -> bool:
    return bool(OPTION.match(text) or TYPOGRAPHIC_DASH.match(text))


def _begins_other(text: str) -> bool:
    return bool(_begins_option(text) or LONE_DASH.match(text) or text.startswith(("--", "=")) or text == "-")


def _is_own_word(text: str) -> bool:
    """A word that stands for itself even where a value could: a known `name=value`, or a config file."""
    pair = PAIR.fullmatch(text)
    return bool(CONFIG_FILE.fullmatch(text) or (pair and is_known(pair[1].replace("-", "_"))))


def _belongs_to_switch(text: str, shape: Shape) -> bool:
    """Whether the word after `--flag` is its value.  One that is neither true nor false is still taken, and refused,
    unless it stands for itself or is a path."""
    if text.lower() in TRUE + FALSE or text in shape.choices:
        return True
    if str not in shape.scalars and re.search(r"[/\\.]", text):
        return False
    return not (_begins_other(text) or _is_own_word(text))


def _is_file(text: str) -> bool:
    return bool(CONFIG_FILE.fullmatch(text)) and os.path.isfile(text)


def _list_values(rest: deque[Word]) -> list[str]:
    values: list[str] = []
    while rest and not _begins_other(rest[0].text):
        if values and (_is_own_word(rest[0].text) or PAIR.fullmatch(rest[0].text)):
            break
        values.append(rest.popleft().text)
    return values


def _skip_value(rest: deque[Word]) -> None:
    """Pass over what was probably the value of an option that is wrong, so that it is not a second problem."""
    if rest and not _begins_other(rest[0].text) and not _is_own_word(rest[0].text):
        rest.popleft()


def _once(written: list[Written], problems: Problems) -> list[Written]:
    """Each spelling once; a second time is a problem, whatever its value."""
    first: dict[str, Written] = {}
    for option in written:
        if option.name in first:
            before = first[option.name].place
            where = f", first in line {before.line}" if before.source and before.line != option.place.line else ""
            problems.add(option.place, f"{option.shown}: given twice{where}")
        else:
            first[option.name] = option
    return list(first.values())
