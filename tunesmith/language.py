"""In which language a user is told things, and English sentences -> Chinese ones.  Knows no sentence: they are data.

Sentences are written in English where they are told.  `chinese/*.toml` holds each as a pattern with a hole for what is put
in: `{}` for a value, which stays as it is, `{text}` for words that are translated in their turn, `{s}` for the end of a
plural.  The Chinese sentence beside it places them by number, in any order: `{0}`, `{1}`.
"""

import os
import re
import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import islice, pairwise
from pathlib import Path

from tunesmith import log

LANGUAGES = ("en", "zh")
VARIABLES = ("TUNESMITH_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
"""Where a language may be named, the strongest first."""

OPTION = re.compile(r"(?:--)?lang(?:=(.*))?")
OPTION_IN_FILE = re.compile(r"^\W*lang\W+(en|zh)\b", re.MULTILINE)
HOLE = re.compile(r"(\{(?:text|s)?\})")
LIST_ENDS = ("; ", ", ")
"""What stands between the sentences of a list."""

PLACE_ENDS = re.compile("[:;] ")
NEXT_BEGINS = re.compile(r"$|[;,] | \(| in |'")
"""How words begin that are put right behind a value."""

PLAIN_VALUE = re.compile(r"|'[^']*'|[-+]?(?:[\d.,e+-]+%?|\.?inf|\.?nan)|\[.*\]|\{.*\}|[()]", re.DOTALL)
"""What needs no translation where words of ours could stand."""


NAMES = re.compile(rf"(?:[^ ]|, )*|{PLAIN_VALUE.pattern}", re.DOTALL)
"""What may be a value where many sentences would fit."""

DEEPEST = 5
"""Sentences within sentences."""

MOST_READINGS = 20
"""Ways to read a line as one pattern that are tried, so that no line takes long."""

FEW_LETTERS = 12
"""A pattern with fewer letters of its own, such as `{} has no {}`, fits many sentences, so its values must be NAMES."""


def of_surroundings() -> str:
    """`zh` where the environment asks for Chinese, else `en`."""
    named = next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    return "zh" if named.lower().startswith("zh") else "en"


def of_words(words: list[str]) -> str:
    """The language that command line words ask for, before anything checks them: `auto` when none does."""
    for word, following in pairwise([*words, ""]):
        if (match := OPTION.fullmatch(word)) and (match[1] or following) in LANGUAGES:
            return match[1] or following
    return "auto"


def of_file(text: str) -> str | None:
    """The language that a config file asks for, also one that can't be read; None when it asks for none."""
    match = OPTION_IN_FILE.search(text)
    return match[1] if match else None


def speak(wanted: str) -> None:
    """Tell errors, warnings and notes in `wanted`: `auto`, `en` or `zh`, from now on."""
    language = of_surroundings() if wanted == "auto" else wanted
    log.translate_with(chinese if language == "zh" and _shows_chinese() else None)


def _shows_chinese() -> bool:
    """Whether standard error can hold Chinese: English is better than code numbers."""
    try:
        "中文".encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def chinese(told: str) -> str:
    """The Chinese for what is told, line by line; a line that no pattern fits stays as it is."""
    return "\n".join(_sentence(line) or line for line in told.split("\n"))


@lru_cache(maxsize=1000)
def _sentence(text: str, depth: int = DEEPEST) -> str | None:
    """The Chinese for a sentence, a list of sentences, or either behind the place that it is about."""
    if depth == 0:
        return None
    for read in (_matched, _listed):
        place, rest = "", text
        while not any(end in place for end in LIST_ENDS):
            if found := read(rest, depth):
                return place + found
            head, colon, rest = rest.partition(": ")
            if not colon:
                break
            place += head + colon
    return None


def _listed(text: str, depth: int) -> str | None:
    """The Chinese for sentences in a row, if there is one for each."""
    for end in LIST_ENDS:
        found = [_sentence(one, depth - 1) for one in text.split(end)] if end in text else []
        if found and all(found):
            return end.join(filter(None, found))
    return None


@lru_cache(maxsize=1000)
def _matched(text: str, depth: int) -> str | None:
    """The Chinese for a sentence that fits a pattern as a whole."""
    meant: tuple[str, list[str]] | None = None
    for pattern, pieces, is_weak in _patterns():
        if not text.endswith(pieces[-1]) or not all(piece in text for piece in pieces[::2]):
            continue
        for values in islice(_values(pieces, text), MOST_READINGS):
            held = list(zip(pieces[1::2], values, strict=True))
            if is_weak and any(kind == "{}" and not NAMES.fullmatch(value) for kind, value in held):
                continue
            if all(PLAIN_VALUE.fullmatch(one) or _sentence(one, depth - 1) for kind, one in held if kind == "{text}"):
                return _filled(pattern, values, depth)
            meant = meant or (pattern, values)
    return _filled(*meant, depth) if meant else None


def _values(pieces: list[str], text: str, is_first: bool = True) -> Iterator[list[str]]:
    """What the holes of a pattern may hold so that it is `text`, the shortest first."""
    words, *rest = pieces
    if not text.startswith(words):
        return
    text = text.removeprefix(words)
    if not rest:
        if not text:
            yield []
        return
    following = rest[1]
    end = len(text) - len(following) if len(rest) == 2 else 0
    while (end := text.find(following, max(end, 0))) >= 0:
        if following or len(rest) == 2 or NEXT_BEGINS.match(text, end):
            # What stands before `: ` at the beginning is a place, and not translated.
            if is_first and not words and PLACE_ENDS.search(text, 0, end + 1):
                return
            yield from ([text[:end], *more] for more in _values(rest[1:], text[end:], False))
        end += 1


def _filled(pattern: str, values: list[str], depth: int) -> str:
    """The Chinese sentence of a pattern with the values in their places."""
    kinds = HOLE.findall(pattern)
    given = [
        (_sentence(value, depth - 1) if kind == "{text}" else None) or value
        for kind, value in zip(kinds, values, strict=True)
        if kind != "{s}"
    ]
    return re.sub(r"\{(\d)\}", lambda number: given[int(number[1])], table()[pattern])


@cache
def table() -> dict[str, str]:
    """English pattern -> Chinese sentence, of all rooms."""
    import tomllib

    found: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / "chinese").glob("*.toml")):
        found |= tomllib.loads(path.read_text(encoding="utf-8"))
    return found


@cache
def _patterns() -> list[tuple[str, list[str], bool]]:
    """Each pattern, its words and holes in turn, and whether it has few words of its own.  The one with the most comes
    first, of those with as many the one with the fewest holes."""
    pieces = {pattern: HOLE.split(pattern) for pattern in table()}
    letters = {pattern: sum(len(piece.replace(" ", "")) for piece in pieces[pattern][::2]) for pattern in pieces}
    ordered = sorted(pieces.items(), key=lambda item: (-letters[item[0]], len(item[1])))
    return [(pattern, parts, letters[pattern] < FEW_LETTERS) for pattern, parts in ordered]
