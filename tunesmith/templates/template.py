"""The shape of a chat format: a Template is data, its slots are strings with marks.  Knows no tokenizer, no family.

A slot is text in which `{{content}}` stands for the turn's words, `{{bos}}` and `{{eos}}` for tokens that the tokenizer
decides, and everything after `{{answer}}` is written only where an answer follows: the generation prompt.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunesmith.log import OptionError
from tunesmith.templates.conversation import Piece, Thinking

Pieces = tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    """A named chat format.  Variants are made with `dataclasses.replace`; nothing here is code."""

    name: str
    user: str
    assistant: str
    system: str = "{{content}}"
    observation: str = ""
    """A tool's result; empty: written as a user turn."""
    observation_separator: str = ""
    """Written between results that follow one another, which are then one turn; empty: each is a turn of its own."""
    function: str = ""
    """An answer that calls tools; empty: written as an assistant turn."""
    prefix: str = ""
    """Once, before everything."""
    default_system: str = ""
    """System prompt of conversations that have none."""
    system_in_user: bool = False
    """The system slot goes inside the first user turn, before its words."""
    tool_format: str = "default"
    """Name of the dialect in which tools and calls are written."""
    date_string: str = "26 Jul 2024"
    """Date told by dialects that tell one; fixed, so that the same row is the same text tomorrow."""
    stop_words: tuple[str, ...] = ()
    """Tokens besides the tokenizer's eos that end a turn."""
    replace_eos: bool = False
    """The first stop word takes the place of the tokenizer's eos."""
    thought_words: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    """What opens and closes a thought at the start of an answer."""
    empty_thought: str = ""
    """What an answer without a thought begins with; empty: both thought words."""
    reasoning: bool = False
    """The family's answers begin with a thought; `enable_thinking` applies."""
    enable_thinking: bool | None = True
    """An answer without a thought gets an empty one, learned (True) or unlearned, all thoughts removed (False); None
    leaves answers as they are.  Only where `reasoning`."""
    thinking: Thinking | None = None
    """What happens to thoughts, also where not `reasoning`.  None: as `enable_thinking` says."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot ready to be filled: the pieces around its content, and those only written before an answer."""

    before: Pieces
    after: Pieces
    answer: Pieces
    has_content: bool

    def fill(self, content: Iterable[Piece], *, answer: bool = False) -> list[Piece]:
        """The turn's pieces; `answer`: an answer follows, so the generation prompt is written too."""
        middle = content if self.has_content else ()
        return [*self.before, *middle, *self.after, *(self.answer if answer else ())]


_MARK = re.compile(r"\{\{(\w+)\}\}")
_MARKS = ("content", "bos", "eos", "answer")


def parse_slot(text: str, where: str) -> Slot:
    """Slot of the string `text`; `where` names it in errors.  OptionError: an unknown mark, or one given twice."""
    parts: dict[str, list[Piece]] = {"before": [], "after": [], "answer": []}
    part, seen, end = "before", set(), 0
    for mark in _MARK.finditer(text):
        name = mark[1]
        if name not in _MARKS:
            marks = "{{" + "}}, {{".join(_MARKS) + "}}"
            raise OptionError(f"{where}: unknown mark {mark[0]}; a slot may hold {marks}")
        if text[end : mark.start()]:
            parts[part].append(Piece(text[end : mark.start()]))
        end = mark.end()
        if name in ("bos", "eos"):
            parts[part].append(Piece(name, "token"))
            continue
        if name in seen or (name == "content" and part == "answer"):
            raise OptionError(f"{where}: {mark[0]} may stand once, the content before the answer")
        seen.add(name)
        part = "after" if name == "content" else "answer"
    if text[end:]:
        parts[part].append(Piece(text[end:]))
    return Slot(tuple(parts["before"]), tuple(parts["after"]), tuple(parts["answer"]), "content" in seen)


def control(text: str) -> Piece:
    """The template's own words."""
    return Piece(text)


def data(text: str) -> Piece:
    """Words of the row."""
    return Piece(text, "data")


def join(pieces: Iterable[Piece]) -> Pieces:
    """The same text in as few pieces as their origins allow."""
    joined: list[Piece] = []
    for piece in pieces:
        if piece.kind != "token" and joined and joined[-1].kind == piece.kind:
            joined[-1] = Piece(joined[-1].text + piece.text, piece.kind)
        elif piece.text:
            joined.append(piece)
    return tuple(joined)


def plain(pieces: Sequence[Piece]) -> str:
    """Text of pieces that hold no tokens."""
    return "".join(piece.text for piece in pieces)
