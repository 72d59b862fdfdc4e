"""A tokenizer's plain side: pieces of text -> ids, in which words from data never become control tokens.  Knows no
conversation and no label; small enough to travel to worker processes."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from tunesmith.data.encoding.line_ends import Lines, lines_of, parts_at_line_ends
from tunesmith.log import OptionError
from tunesmith.templates.conversation import Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIXED = -1
"""Origin of a token that is not words of data."""


Run = Sequence[Piece]
"""Pieces of text, spelled as one text; or a single token piece."""


@dataclass(slots=True)
class Spelled:
    """Ids and, for each, where in its text the data's character stands that it spells; FIXED for the template's."""

    ids: list[int]
    origins: list[int]


class Speller(Protocol):
    """What turns text into ids, whichever library does it."""

    def spell(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, control tokens in it included."""
        ...

    def spell_plain(self, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
        """Ids of a text in which no special token is meant, and the characters of each id if that is known."""
        ...


class RustSpeller:
    """Spells with the `tokenizers` library."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def spell(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def spell_plain(self, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
        self.tokenizer.encode_special_tokens = True
        try:
            encoding = self.tokenizer.encode(text, add_special_tokens=False)
        finally:
            self.tokenizer.encode_special_tokens = False
        return encoding.ids, encoding.offsets


class PythonSpeller:
    """Spells with a tokenizer that is written in Python, as some models bring along."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self.tokenizer = tokenizer

    def spell(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def spell_plain(self, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True), None


@dataclass(frozen=True, slots=True)
class Control:
    """A control token: its id, and whether it swallows the white space beside it."""

    id: int
    strips_left: bool = False
    strips_right: bool = False
    parts_text: bool = False
    """Text before and after it is spelled as if it stood alone."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A template's text taken apart: the ids from its first to its last control token, and the words around them."""

    before: Piece | None
    ids: list[int]
    after: Piece | None


class Vocabulary:
    """Spells runs of pieces.  A run is written at a row's start or continues it, which matters to tokenizers that put
    a space before the first word only."""

    def __init__(
        self,
        speller: Speller,
        continuing: Speller,
        controls: dict[str, Control],
        *,
        bos_id: int | None,
        eos_id: int | None,
        writes_bos: bool = False,
        allow_special_tokens: bool = False,
        parts_at_line_ends: bool = False,
    ):
        self.speller, self.continuing, self.controls = speller, continuing, controls
        self.bos_id, self.eos_id, self.writes_bos = bos_id, eos_id, writes_bos
        self.allow_special_tokens, self.parts_at_line_ends = allow_special_tokens, parts_at_line_ends
        ids = [control.id for control in controls.values()]
        self.is_control = np.zeros(max(ids, default=0) + 2, dtype=bool)  # the last stands for all greater ids
        self.is_control[ids] = True
        self.pattern = _any_of(controls)
        self.parting = _any_of([word for word, control in controls.items() if control.parts_text])
        self.frames: dict[str, Frame | None] = {}
        self.remembered: dict[tuple[str, bool], list[int]] = {}
        self.meant: dict[str, int] = {}
        self.lines: dict[str, Lines] = {}

    @classmethod
    def of(
        cls, tokenizer: "PreTrainedTokenizerBase", stop_words: Iterable[str] = (), *, allow_special_tokens: bool = False
    ) -> "Vocabulary":
        """The vocabulary of a tokenizer.  Its control tokens: the special ones, and `stop_words` that it has."""
        from transformers import PreTrainedTokenizerFast

        added = tokenizer.added_tokens_decoder
        words = set(stop_words)
        rust = isinstance(tokenizer, PreTrainedTokenizerFast)
        controls = {
            token.content: Control(id, token.lstrip, token.rstrip, rust and _parts_text(token))
            for id, token in added.items()
            if token.special or token.content in words
        }
        speller: Speller
        continuing: Speller
        if rust:
            backend = tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            speller = RustSpeller(backend)
            continuing = _without_first_space(backend) or speller
        else:
            speller = continuing = PythonSpeller(tokenizer)
        return cls(
            speller,
            continuing,
            controls,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
            writes_bos=tokenizer.bos_token_id is not None and tokenizer.encode("a")[0] == tokenizer.bos_token_id,
            allow_special_tokens=allow_special_tokens,
            parts_at_line_ends=rust and continuing is speller and parts_at_line_ends(backend),
        )

    def has(self, word: str) -> bool:
        """Whether a word is one token."""
        return word in self.controls or len(self.continuing.spell([word])[0]) == 1

    def token(self, name: str) -> list[int]:
        """Ids of the token piece `bos` or `eos`: a missing bos is left out, a missing eos raises OptionError."""
        if name == "bos":
            return [] if self.bos_id is None else [self.bos_id]
        if self.eos_id is None:
            raise OptionError("template: ends turns with the tokenizer's eos token, and the tokenizer has none")
        return [self.eos_id]

    def runs(self, pieces: Iterable[Piece]) -> list[Run]:
        """Pieces as runs: token pieces by themselves, the text between them together."""
        runs, text = list[Run](), list[Piece]()
        for piece in pieces:
            if piece.kind != "token":
                text.append(piece)
                continue
            runs += [text, [piece]] if text else [[piece]]
            text = []
        return [*runs, text] if text else runs

    def spell_runs(self, runs: Sequence[Run], starts: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all runs one after another, int32 [tokens], and how many each has, int64 [runs].  `starts`: whether a
        run stands at its row's start.

        A run is spelled as one text, but for the template's own words between control tokens, and, with most
        tokenizers, in lines of their own, which are spelled once and remembered.  Only where a text gives other control
        tokens than the template's pieces in it do, data must have smuggled some in, and it is spelled anew with care."""
        parts, firsts, waiting = list[list[int]](), list[int](), _Waiting()
        for run, start in zip(runs, starts, strict=True):
            firsts.append(len(parts))
            self._take_apart(run, start, parts, waiting)
        for place, ids in zip(waiting.places, self._spell_all(waiting), strict=True):
            parts[place] = ids
        flat, lengths = _flat(parts)
        if not self.allow_special_tokens and self.controls and waiting.texts:
            meant = [sum([self._meant(p.text) for p in text if p.kind == "control"]) for text in waiting.texts]
            found = self._counts(flat, lengths)[waiting.places]
            for index in (smuggled := np.flatnonzero(found != np.array(meant, dtype=np.int64)).tolist()):
                exactly = self.spell_exactly(waiting.texts[index], waiting.starts[index])
                parts[waiting.places[index]] = exactly.ids
            if smuggled:
                flat, lengths = _flat(parts)
        return flat, np.add.reduceat(lengths, firsts) if firsts else lengths

    def _take_apart(self, run: Run, start: bool, parts: list[list[int]], waiting: "_Waiting") -> None:
        """Add the ids of a run's parts to `parts`: at least one part; an empty one for each text that waits."""
        if run[0].kind == "token":
            parts.append(self.token(run[0].text))
            return
        text: list[Piece] = []
        for piece in run:
            frame = self._frame(piece.text) if piece.kind == "control" else None
            if frame is None:
                text.append(piece)
                continue
            if frame.before:
                text.append(frame.before)
            if text:
                self._add_text(text, start, parts, waiting)
            parts.append(frame.ids)
            start, text = False, [frame.after] if frame.after else []
        if text:
            self._add_text(text, start, parts, waiting)

    def _add_text(self, text: list[Piece], start: bool, parts: list[list[int]], waiting: "_Waiting") -> None:
        """Add a text between control tokens to `parts` or to what waits, without the template's whole lines at its ends."""
        if all([piece.kind == "control" for piece in text]):
            parts.append(self._remembered("".join([piece.text for piece in text]), start))
            return
        behind: list[int] | None = None
        if self.parts_at_line_ends:
            first, last = text[0], text[-1]
            if last.kind == "control" and (cut := self._lines(last.text).first):
                behind = self._remembered(last.text[cut:], False)
                text = [*text[:-1], Piece(last.text[:cut])]
            if first.kind == "control":
                lines, follower = self._lines(first.text), text[1].text[:1]
                cut = len(first.text) if lines.closed and follower and not follower.isspace() else lines.last
                if cut:
                    parts.append(self._remembered(first.text[:cut], start))
                    start = False
                    text = [Piece(first.text[cut:]), *text[1:]] if cut < len(first.text) else text[1:]
        waiting.places.append(len(parts))
        waiting.texts.append(text)
        waiting.starts.append(start)
        parts.append([])
        if behind is not None:
            parts.append(behind)

    def _spell_all(self, waiting: "_Waiting") -> list[list[int]]:
        """Ids of the texts that wait."""
        texts = ["".join([piece.text for piece in text]) for text in waiting.texts]
        if self.continuing is self.speller:
            spelled = self.speller.spell(texts)
        else:
            first = iter(self.speller.spell([text for text, start in zip(texts, waiting.starts, strict=True) if start]))
            later = iter(
                self.continuing.spell([t for t, start in zip(texts, waiting.starts, strict=True) if not start])
            )
            spelled = [next(first if start else later) for start in waiting.starts]
        return spelled

    def _frame(self, text: str) -> Frame | None:
        """A template's text taken apart; None when no control token in it parts it."""
        if text not in self.frames:
            found = list(self.parting.finditer(text))
            frame = None
            if found:
                before, after = text[: found[0].start()], text[found[-1].end() :]
                ids = self._remembered(text[len(before) : len(text) - len(after)], False)
                frame = Frame(Piece(before) if before else None, ids, Piece(after) if after else None)
            self._forget_when_full(self.frames)
            self.frames[text] = frame
        return self.frames[text]

    def _remembered(self, text: str, start: bool) -> list[int]:
        """Ids of a template's text; templates have few."""
        if (text, start) not in self.remembered:
            self._forget_when_full(self.remembered)
            self.remembered[text, start] = (self.speller if start else self.continuing).spell([text])[0]
        return self.remembered[text, start]

    def _forget_when_full(self, memory: dict[Any, Any]) -> None:
        if len(memory) > 10_000:
            memory.clear()

    def spell_exactly(self, run: Run, start: bool) -> Spelled:
        """A run's ids and their origins, spelled between the template's control tokens one part after another."""
        spelled = Spelled([], [])
        if run[0].kind == "token":
            spelled.ids += self.token(run[0].text)
            spelled.origins += [FIXED] * len(spelled.ids)
            return spelled
        at, words, swallow = 0, list[tuple[str, bool]](), False
        for piece in run:
            is_data = piece.kind == "data"
            pattern = self.pattern if self.allow_special_tokens or not is_data else re.compile(r"(?!)")
            done = 0
            for match in pattern.finditer(piece.text):
                control = self.controls[match[0]]
                words.append((piece.text[done : match.start()], is_data))
                at = self._spell_words(words, at, spelled, start, strip=(swallow, control.strips_left))
                spelled.ids.append(control.id)
                spelled.origins.append(FIXED)
                at, done, words, swallow = at + len(match[0]), match.end(), [], control.strips_right
            words.append((piece.text[done:], is_data))
        self._spell_words(words, at, spelled, start, strip=(swallow, False))
        return spelled

    def _spell_words(
        self, words: list[tuple[str, bool]], at: int, into: Spelled, start: bool, *, strip: tuple[bool, bool]
    ) -> int:
        """Spell text without control tokens, which begins at character `at` of its run; returns where it ends."""
        text = "".join(part for part, _ in words)
        end = at + len(text)
        from_data = np.repeat([is_data for _, is_data in words], [len(part) for part, _ in words])
        left = len(text) - len(text.lstrip()) if strip[0] else 0
        text = text[left:].rstrip() if strip[1] else text[left:]
        if text:
            speller = self.speller if start and not into.ids else self.continuing
            ids, offsets = self._spell_plain(speller, text)
            into.ids += ids
            for first, last in offsets:
                ours = from_data[left + first : left + last]
                into.origins.append(at + left + first if len(ours) and ours.all() else FIXED)
        return end

    def _spell_plain(self, speller: Speller, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and characters of a text that holds no control token; what looks like one is broken up."""
        ids, offsets = speller.spell_plain(text)
        if not self.allow_special_tokens and self._counts(*_flat([ids]))[0]:
            match = self.pattern.search(text)
            if match and len(text) > 1:
                cut = match.start() + 1
                before, after = self._spell_plain(speller, text[:cut]), self._spell_plain(self.continuing, text[cut:])
                return before[0] + after[0], before[1] + [(a + cut, b + cut) for a, b in after[1]]
        return ids, offsets if offsets is not None else [(0, len(text))] * len(ids)

    def _meant(self, text: str) -> int:
        """Control tokens in a template's text."""
        if text not in self.meant:
            self._forget_when_full(self.meant)
            self.meant[text] = int(self._counts(*_flat([self._remembered(text, False)]))[0])
        return self.meant[text]

    def _lines(self, text: str) -> Lines:
        """Where a template's text can be cut."""
        if text not in self.lines:
            self._forget_when_full(self.lines)
            self.lines[text] = lines_of(text)
        return self.lines[text]

    def _counts(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Control tokens in each list of ids, int64 [lists]."""
        places = np.flatnonzero(self.is_control.take(ids, mode="clip"))
        return np.bincount(np.searchsorted(np.cumsum(lengths), places, side="right"), minlength=len(lengths))


@dataclass(slots=True)
class _Waiting:
    """Texts to be spelled at once: their pieces, whether each starts its row, and where their ids belong."""

    texts: list[list[Piece]] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the words, the longest first; nothing when there are none."""
    return re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) or r"(?!)")


def _parts_text(token: Any) -> bool:
    return not (token.normalized or token.single_word or token.lstrip or token.rstrip)


def _flat(spelled: Sequence[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter(map(len, spelled), dtype=np.int64, count=len(spelled))
    return np.fromiter(chain.from_iterable(spelled), dtype=np.int32, count=int(lengths.sum())), lengths


def _without_first_space(backend: Tokenizer) -> RustSpeller | None:
    """A copy of a tokenizer that writes a space before a text's first word, without that space; None for others."""
    if backend.pre_tokenizer is None or b'"prepend_scheme":"first"' not in backend.pre_tokenizer.__getstate__():
        return None
    state = json.loads(backend.to_str())
    _never_prepend(state["pre_tokenizer"])
    return RustSpeller(Tokenizer.from_str(json.dumps(state)))


def _never_prepend(state: Any) -> None:
    if state.get("prepend_scheme") == "first":
        state["prepend_scheme"] = "never"
    for part in state.get("pretokenizers", ()):
        _never_prepend(part)
