"""Follows a row's words through a text that a program makes of them.  Knows no template.

Every character of a row is replaced by a private-use character of its own before the text is made; what comes out tells,
character by character, which turn it is from.  White space, quotes and backslashes stay, so that trimming and JSON work
as they would on the words themselves.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.log import DataError
from tunesmith.templates.conversation import Piece
from tunesmith.templates.template import control, data

_FIRST, _LAST = 0xF0000, 0x10FF00
_PRIVATE = "[\U000f0000-\U0010ffff]"
_KEEPS = r"[\s\"\\\x00-\x1f]"
_KEPT = re.compile(rf"</?think>|{_KEEPS}")
_RUN = re.compile(f"{_PRIVATE}+(?:{_KEEPS}+{_PRIVATE}+)*")
_MARKUP = r"<[^<>\s]{1,60}>|\[/?[A-Z_]{3,30}\]"


class Origins:
    """The characters that stand for a row's own."""

    def __init__(self, special: Sequence[str] = (), *, only_special: bool = False):
        """`only_special`: follow nothing but special tokens and what looks like one; for templates that look into the
        words."""
        tokens = [re.escape(token) for token in sorted(special, key=len, reverse=True)]
        self._special = re.compile("|".join([*tokens, _PRIVATE, _MARKUP]))
        self._only_special = only_special
        self._stand_ins: dict[tuple[int, str], str] = {}
        self._own: dict[int, str] = {}
        self._words: dict[int, str] = {}
        self._next = _FIRST
        self.wholes: dict[str, int] = {}
        """Characters that stand for a whole answer -> its turn."""

    def _new(self, turn: int) -> str:
        if self._next > _LAST:
            raise DataError("the row has more different characters than can be followed through a chat template")
        made = chr(self._next)
        self._next += 1
        self._own[turn] = self._own.get(turn, "") + made
        return made

    def whole(self, turn: int) -> str:
        """One character that stands for an answer."""
        made = self._new(turn)
        self.wholes[made] = turn
        return made

    def name(self, turn: int, text: str) -> str:
        """One character that stands for a name, also where only special tokens are followed."""
        made = self._new(turn)
        self._words[ord(made)] = text
        return made

    def follow(self, turn: int, text: str) -> str:
        """The text in characters that tell where they are from."""
        if self._only_special:
            return self._special.sub(lambda match: self._all(turn, match[0]), text)
        parts, end = [], 0
        for kept in _KEPT.finditer(text):
            parts += [self._all(turn, text[end : kept.start()]), kept[0]]
            end = kept.end()
        return "".join([*parts, self._all(turn, text[end:])])

    def _all(self, turn: int, text: str) -> str:
        for character in set(text):
            if (turn, character) not in self._stand_ins:
                made = self._stand_ins[turn, character] = self._new(turn)
                self._words[ord(made)] = character
        return "".join([self._stand_ins[turn, character] for character in text])

    def follow_value(self, turn: int, value: Any) -> Any:
        """A JSON value with all its strings and keys followed."""
        if isinstance(value, str):
            return self.follow(turn, value)
        if isinstance(value, Mapping):
            return {self.follow(turn, key): self.follow_value(turn, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.follow_value(turn, item) for item in value]
        return value

    def left_out(self, text: str) -> list[int]:
        """Turns of which no character is in the made text."""
        shown = set(text)
        return [turn for turn, own in self._own.items() if shown.isdisjoint(own)]

    def shown_whole(self, text: str, turn: int) -> bool:
        """Whether each of the turn's different characters is in the made text."""
        return set(self._own.get(turn, "")) <= set(text)

    def span(self, text: str, turn: int) -> tuple[int, int] | None:
        """Where the turn's characters begin and end in the made text; None when it has none."""
        own = self._own.get(turn, "")
        if len(own) == 1:
            first, last = text.find(own), text.rfind(own)
        else:
            places = [match.start() for match in re.finditer(f"[{own}]", text)] if own else [-1]
            first, last = (places[0], places[-1]) if places else (-1, -1)
        return (first, last + 1) if first >= 0 else None

    def restored(self, text: str) -> str:
        """The made text with the row's own characters again, stand-ins for whole answers aside."""
        return text.translate(self._words)

    def pieces(self, text: str) -> Iterator[Piece]:
        """The made text as pieces: what is from the row, with the white space inside it, is data."""
        end = 0
        for run in _RUN.finditer(text):
            yield control(text[end : run.start()])
            yield data(self.restored(run[0]))
            end = run.end()
        yield control(text[end:])
