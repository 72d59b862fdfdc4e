"""A pasted shell command -> its words, each with its line.  Knows quotes and line ends; knows no option.

It reads what a guide prints: `\\` line ends, `#` comment lines between the options, a program's name in front.  Unlike
a shell it keeps the backslashes of `saves\\Model\\run`, and fills in no variables.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesmith.config.written import Place, Word
from tunesmith.log import OptionError

PROGRAMS = ("llamafactory-cli", "lmf", "tunesmith")
LOOKS_LIKE_COMMAND = re.compile(
    r"\s*([$!]\s+)?(export\s|[A-Za-z_]\w*=|--[A-Za-z]|(\S*[/\\])?(llamafactory-cli|lmf|tunesmith|python3?|torchrun)\s)"
)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)

TOKENS = re.compile(
    r"""(?P<fence>^```[^\n]*)
    | (?P<continuation>[\\`^][ \t]*(?:\#[^\n]*)?(?:\r?\n|\Z))
    | (?P<space>\s+)
    | (?P<single>'[^']*')
    | (?P<double>"(?:[^"\\]|\\.)*")
    | (?P<open>['"“”‘’])
    | (?P<escape>\\(?!\ +--)[ '"\\#$&|;()*?<>])
    | (?P<variable>\$\{?[A-Za-z_]\w*\}?)
    | (?P<plain>.)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Command:
    """What a pasted command asks for: variables set before it, the sub-command (None when left out), its words."""

    environment: dict[str, str]
    name: str | None
    words: list[Word]


def looks_like_command(text: str) -> bool:
    """Whether the first line that is neither empty nor a comment begins a command rather than a YAML file."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "```")):
            return bool(LOOKS_LIKE_COMMAND.match(line + " "))
    return False


def read_command(text: str, source: Path, layer: int) -> Command:
    """The command that a file holds.  OptionError with the line when it can't be read."""
    words = list(_words(text, source, layer))
    if words and words[0].text in ("$", "!"):
        del words[0]
    environment: dict[str, str] = {}
    while words and (words[0].text == "export" or ASSIGNMENT.fullmatch(words[0].text)):
        variable, equals, value = words.pop(0).text.partition("=")
        if equals:
            environment[variable] = value
    if not words:
        raise OptionError(f"{Place(layer, 1, source)}: holds no command")
    program = [word.text for word in words[:3]]
    if program[0].startswith("--"):
        return Command(environment, None, words)
    if re.split(r"[/\\]", program[0])[-1] in PROGRAMS:
        start = 1
    elif len(program) == 3 and program[1:] in (["-m", "tunesmith"], ["-m", "llamafactory.cli"]):
        start = 3
    else:
        raise OptionError(f"{words[0].place}: a command must begin with tunesmith or llamafactory-cli")
    name = words[start].text if start < len(words) and not words[start].text.startswith("--") else None
    rest = words[start + (name is not None) :]
    for word in rest:
        if word.text in PROGRAMS:
            raise OptionError(f"{word.place}: a second command; a file may hold one")
    return Command(environment, name, rest)


def _words(text: str, source: Path, layer: int) -> Iterator[Word]:
    """Words in order.  A `#` that begins a word is a comment up to the end of its line."""
    current: str | None = None
    line = begun = 1
    position = 0
    while position < len(text):
        token = TOKENS.match(text, position)
        assert token, "every character is at least a plain one"
        piece = token.group()
        kind = token.lastgroup
        position = token.end()
        if current is None and piece == "#":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        if kind in ("space", "continuation", "fence"):
            if current is not None:
                yield Word(current, Place(layer, begun, source))
                current = None
        else:
            begun = line if current is None else begun
            current = (current or "") + _meaning(str(kind), piece, Place(layer, line, source))
        line += piece.count("\n")
    if current is not None:
        yield Word(current, Place(layer, begun, source))


def _meaning(kind: str, piece: str, place: Place) -> str:
    if kind == "single":
        return piece[1:-1]
    if kind == "double":
        inner = re.sub(r"\\\r?\n", "", piece[1:-1])
        if variable := re.search(r"(?<!\\)\$\{?[A-Za-z_]\w*\}?", inner):
            raise OptionError(f"{place}: {variable.group()} is not filled in here; write its value")
        return re.sub(r'\\(["\\$`])', r"\1", inner)
    if kind == "escape":
        return piece[1]
    if kind == "variable":
        raise OptionError(f"{place}: {piece} is not filled in here; write its value")
    if kind == "open":
        typographic = piece not in "'\""
        raise OptionError(
            f'{place}: {piece} is a typographic quote; write " instead'
            if typographic
            else f"{place}: a {piece} is never closed"
        )
    return piece
