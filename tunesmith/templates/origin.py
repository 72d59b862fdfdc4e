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
_KEEPS = r"[\s\"\\\x00-\x1f\x7f]"
_KEPT = re.compile(rf"</?think>|{_KEEPS}")
_MARKUP = r"<[^<>\s]{1,60}>|\[/?[A-Z_]{3,30}\]"


class Origins:
    """The characters that stand for a row's own."""

    def __init__(self, special: Sequence[str] = (), *, only_special: bool = False):
        """`only_special`: follow nothing but the special tokens in the words (without any known: what looks like markup);
        for templates that look into the words."""
        tokens = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
        self._special = re.compile(f"{_PRIVATE}|{tokens or _MARKUP}")
        self._only_special = only_special
        self._stand_ins: dict[tuple[int, str], str] = {}
        self._origins: dict[str, tuple[int, str]] = {}
        self.wholes: dict[str, int] = {}
        """Characters that stand for a whole answer -> its turn."""

    def _new(self, turn: int, character: str) -> str:
        code = _FIRST + len(self._origins) + len(self.wholes)
        if code > _LAST:
            raise DataError("the row has more different characters than can be followed through a chat template")
        if character:
            self._origins[chr(code)] = (turn, character)
        else:
            self.wholes[chr(code)] = turn
        return chr(code)

    def whole(self, turn: int) -> str:
        """One character that stands for an answer."""
        return self._new(turn, "")

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
        made = []
        for character in text:
            key = (turn, character)
            if key not in self._stand_ins:
                self._stand_ins[key] = self._new(turn, character)
            made.append(self._stand_ins[key])
        return "".join(made)

    def follow_value(self, turn: int, value: Any) -> Any:
        """A JSON value with all its strings and keys followed."""
        if isinstance(value, str):
            return self.follow(turn, value)
        if isinstance(value, Mapping):
            return {self.follow(turn, key): self.follow_value(turn, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.follow_value(turn, item) for item in value]
        return value

    def left_out(self, text: str) -> set[int]:
        """Turns of which no character is in the made text."""
        turns = {turn for turn, _ in self._origins.values()} | set(self.wholes.values())
        return turns - {self._turn(character) for character in set(text)}

    def shown_whole(self, text: str, turn: int) -> bool:
        """Whether each of the turn's different characters is in the made text."""
        own = [character for character in [*self._origins, *self.wholes] if self._turn(character) == turn]
        return all(character in text for character in own)

    def _turn(self, character: str) -> int | None:
        if character in self.wholes:
            return self.wholes[character]
        found = self._origins.get(character)
        return found[0] if found else None

    def span(self, text: str, turn: int) -> tuple[int, int] | None:
        """Where the turn's characters begin and end in the made text; None when it has none."""
        own = "".join(character for character in [*self._origins, *self.wholes] if self._turn(character) == turn)
        places = [match.start() for match in re.finditer(f"[{own}]", text)] if own else []
        return (places[0], places[-1] + 1) if places else None

    def restored(self, text: str) -> str:
        """The made text with the row's own characters again, stand-ins for whole answers aside."""
        return text.translate({ord(character): words for character, (_, words) in self._origins.items()})

    def pieces(self, text: str) -> Iterator[Piece]:
        """The made text as pieces: what is from the row, with the white space inside it, is data."""
        end = 0
        if self._origins:
            followed = f"[{''.join(self._origins)}]"
            for run in re.finditer(rf"{followed}+(?:{_KEEPS}+{followed}+)*", text):
                yield control(text[end : run.start()])
                yield data(self.restored(run[0]))
                end = run.end()
        yield control(text[end:])
