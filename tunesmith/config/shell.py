"""A pasted shell command -> its words, each with its line.  Knows quotes and line ends; knows no option.

It reads what a guide prints: `\\` line ends, `#` comment lines between the options, a program's name in front.  Unlike
a shell it keeps the backslashes of `saves\\Model\\run`, and fills in no variables.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.config.written import Source, Word

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
    | (?P<open>['"])
    | (?P<typographic>(?<=\s)[“”‘’])
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


class Unclear(ValueError):
    """A line of a command that can't be read, and why."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


def read_command(text: str, source: Source) -> Command:
    """The command that a file holds.  Raises Unclear."""
    words = list(_words(text, source))
    if words and words[0].text in ("$", "!"):
        del words[0]
    environment: dict[str, str] = {}
    while words and (words[0].text == "export" or ASSIGNMENT.fullmatch(words[0].text)):
        variable, equals, value = words.pop(0).text.partition("=")
        if equals:
            environment[variable] = value
    if not words:
        raise Unclear(1, "holds no command")
    program = [word.text for word in words[:3]]
    if program[0].startswith("--"):
        return Command(environment, None, words)
    if re.split(r"[/\\]", program[0])[-1] in PROGRAMS:
        start = 1
    elif len(program) == 3 and program[1:] in (["-m", "tunesmith"], ["-m", "llamafactory.cli"]):
        start = 3
    else:
        raise Unclear(words[0].place.line, "a command must begin with tunesmith or llamafactory-cli")
    name = words[start].text if start < len(words) and not words[start].text.startswith("--") else None
    rest = words[start + (name is not None) :]
    for word in rest:
        if word.text in PROGRAMS:
            raise Unclear(word.place.line, "a second command; a file may hold one")
    return Command(environment, name, rest)


def _words(text: str, source: Source) -> Iterator[Word]:
    """Words in order.  A `#` that begins a word is a comment up to the end of its line."""
    current: str | None = None
    line = begun = 1
    position = 0
    while position < len(text):
        token = TOKENS.match(text, position)
        assert token, "every character is at least a plain one"
        kind, piece, position = token.lastgroup, token.group(), token.end()
        if current is None and piece == "#":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        if kind in ("space", "continuation", "fence"):
            if current is not None:
                yield Word(current, source.place(begun))
                current = None
        else:
            begun = line if current is None else begun
            current = (current or "") + _meaning(str(kind), piece, line)
        line += piece.count("\n")
    if current is not None:
        yield Word(current, source.place(begun))


def _meaning(kind: str, piece: str, line: int) -> str:
    """What a token adds to its word."""
    if kind == "single":
        return piece[1:-1]
    if kind == "double":
        inner = re.sub(r"\\\r?\n", "", piece[1:-1])
        if variable := re.search(r"(?<!\\)\$\{?[A-Za-z_]\w*\}?", inner):
            raise Unclear(line, f"{variable.group()} is not filled in here; write its value")
        return re.sub(r'\\(["\\$`])', r"\1", inner)
    if kind == "escape":
        return piece[1]
    if kind == "variable":
        raise Unclear(line, f"{piece} is not filled in here; write its value")
    if kind == "open":
        raise Unclear(line, f"a {piece} is never closed")
    if kind == "typographic":
        raise Unclear(line, f'{piece} is a typographic quote; write " instead')
    return piece
