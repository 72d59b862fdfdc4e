"""What the model will really see of a row: every token, whose words it is, whether it is trained, and what was cut away.

Rows go the way they go in training, through the same code; only the encoder also notes where each token is from.
Knows rows and speakers; knows no screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.cut import Exact
from tunesmith.data.encoding.encode import ANSWERING, Encoded, Encoder, Outcome
from tunesmith.data.encoding.vocabulary import FIXED, Run
from tunesmith.data.keeping.arrays import BAD, GOOD, PLAIN, VARIED
from tunesmith.data.keeping.prepare import Kind, PreparedRows, Preparer
from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader
from tunesmith.data.reading.sources import Dataset
from tunesmith.log import DataError, OptionError
from tunesmith.templates.conversation import ChatFormat, Conversation, Piece, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Speaker = Literal["template", "system", "user", "assistant", "function", "observation", "text"]
"""Whose words a token is: the template's own, a role's, or plain text's.  `system`: the prompt, and tools."""

MARKS = {PLAIN: "", GOOD: "chosen", BAD: "rejected", VARIED: "variation"}
"""What a sample's answer is, in words."""


@dataclass(frozen=True, slots=True)
class SeenSample:
    """One sample that a row became.  Arrays of shape [tokens]."""

    ids: np.ndarray
    """int32"""
    trained: np.ndarray
    """bool; a sample's first token is never trained, as nothing predicts it"""
    speakers: Sequence[Speaker]
    gaps: dict[int, int]
    """Place -> how many tokens were cut away before the token there; the place behind the last token may be one."""
    mark: int
    """PLAIN, GOOD, BAD or VARIED"""
    weights: np.ndarray | None = None
    """float32: how much each token's loss counts, 0 where it is not trained; None when all trained ones count 1"""

    @property
    def trained_tokens(self) -> int:
        """Tokens that are trained."""
        return int(self.trained.sum())


@dataclass(frozen=True, slots=True)
class SeenRow:
    """What became of one row: samples, or the reason why there are none."""

    where: str
    samples: Sequence[SeenSample]
    dropped: str | None = None
    whole_tokens: int | None = None
    """Its tokens before it was cut; None when it was not."""


class Witness(Encoder):
    """An encoder whose ids are places in its own notes, which tell the token and whose words it is."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat | None, cfg: DataConfig):
        super().__init__(tokenizer, chat_format, cfg)
        self.ids: list[int] = []
        self.speakers: list[Speaker] = []
        self.ends: set[int] = set()
        """Places behind the last token of each rendering."""
        self._said: dict[str, Speaker] = {}

    def encode(self, groups: Sequence[Sequence[Conversation]]) -> Outcome:
        self._said = {words: role for group in groups for each in group for words, role in asked(each).items()}
        return super().encode(groups)

    def encode_many(self, rows: Sequence[Sequence[Span]], learned: Sequence[Sequence[float]] | None = None) -> Encoded:
        encoded = super().encode_many(rows, learned)
        places = [
            self._noted(ids, self._speakers(spans, exactly=False))
            for (ids, _), spans in zip(encoded.rows(), rows, strict=True)
        ]
        return replace(encoded, ids=np.concatenate([*places, encoded.ids[:0]]))

    def spell_exactly(self, conversation: Conversation) -> Exact:
        assert self.chat_format is not None
        exact = super().spell_exactly(conversation)
        return replace(exact, ids=self._noted(exact.ids, self._speakers(self.chat_format.render(conversation), True)))

    def _noted(self, ids: np.ndarray, speakers: list[Speaker]) -> np.ndarray:
        """Places in the notes for the tokens of one rendering, int32 [tokens]."""
        assert len(ids) == len(speakers), "each token has a speaker"
        first = len(self.ids)
        self.ids += ids.tolist()
        self.speakers += speakers
        self.ends.add(len(self.ids))
        return np.arange(first, len(self.ids), dtype=np.int32)

    def _speakers(self, spans: Sequence[Span], exactly: bool) -> list[Speaker]:
        """Whose words each token of one rendering is.  `exactly`: as `spell_exactly` spells it."""
        speakers: list[Speaker] = []
        for span in spans:
            for run in self.vocabulary.runs(span.pieces):
                start = not speakers
                spelled = self.vocabulary.spell_exactly(run, start)
                count = len(spelled.ids) if exactly else len(self.vocabulary.spell_runs([run], [start])[0])
                owners = [owner(span, piece, self._said) for piece in run]
                if self.chat_format is None:
                    owners = ["text" if speaker == "assistant" else speaker for speaker in owners]
                if count == len(spelled.ids):
                    speakers += _by_origin(run, owners, spelled.origins)
                else:  # the exact spelling is another one: the longest piece speaks for all
                    speakers += [max(zip(run, owners, strict=True), key=lambda each: len(each[0].text))[1]] * count
        return speakers


def asked(conversation: Conversation) -> dict[str, Speaker]:
    """The words of the turns that are no answers, without the white space around them, and who says them."""
    return {message.content.strip(): message.role for message in conversation.messages if message.role not in ANSWERING}


def owner(span: Span, piece: Piece, said: Mapping[str, Speaker]) -> Speaker:
    """Whose words a piece of a span is.  `said`: the words of turns that are no answers; what else stands before an
    answer, such as tools, counts as the system's."""
    if piece.kind != "data":
        return "template"
    return span.role if span.learned else said.get(piece.text.strip(), "system")


def _by_origin(run: Run, owners: Sequence[Speaker], origins: Sequence[int]) -> list[Speaker]:
    """Whose words the tokens of a run are, by the character each of them spells."""
    ends = np.cumsum([len(piece.text) for piece in run])
    return [
        "template" if origin == FIXED else owners[int(np.searchsorted(ends, origin, side="right"))]
        for origin in origins
    ]


def see(row: Row, reader: Reader, kind: Kind, witness: Witness) -> SeenRow:
    """What becomes of a row.  Raises DataError only where `overflow` is `error`."""
    witness.ids, witness.speakers, witness.ends = [], [], set()
    prepared = Preparer(witness, kind, strict=False)(reader, [row])
    samples = list(_samples(prepared, witness))
    return SeenRow(
        row.where,
        samples,
        dropped=prepared.dropped[0][0] if prepared.dropped else None,
        whole_tokens=prepared.cut[0][1] if prepared.cut else None,
    )


def _samples(prepared: PreparedRows, witness: Witness) -> Iterator[SeenSample]:
    rows = prepared.rows
    ends = np.cumsum(rows.lengths).tolist()
    for start, end, mark in zip([0, *ends], ends, rows.marks.tolist(), strict=False):
        places = rows.ids[start:end].tolist()
        trained = np.array(rows.trained[start:end])
        trained[:1] = False
        weights = None if rows.weights is None else np.where(trained, rows.weights[start:end], np.float32(0))
        yield SeenSample(
            np.array([witness.ids[place] for place in places], dtype=np.int32),
            trained,
            [witness.speakers[place] for place in places],
            _gaps(places, witness.ends),
            mark,
            None if weights is None or (weights == trained).all() else weights,
        )


def _gaps(places: list[int], ends: set[int]) -> dict[int, int]:
    """Where tokens of the rendering are missing, and how many."""
    end = min(end for end in ends if end > places[-1])
    jumps = enumerate(pairwise([*places, end]), start=1)
    return {at: place - before - 1 for at, (before, place) in jumps if place > before + 1}


def find_row(datasets: Sequence[Dataset], name: str) -> tuple[Dataset, Row]:
    """The row that `7` (of the first dataset) or `NAME:7` (of a dataset or a file of that name) means.

    Raises OptionError for what is no number, DataError for a row that is not there."""
    within, _, number = name.strip().rpartition(":")
    if not (number.isascii() and number.isdigit() and int(number)):
        raise OptionError(f"--row: must be a row's number from 1 on, or NAME:NUMBER, got '{name}'")
    for dataset in datasets if within else datasets[:1]:
        for row in dataset.source.read():
            if row.number == int(number) and within in ("", dataset.name, row.file):
                return dataset, row
    known = ", ".join(dict.fromkeys(dataset.name for dataset in datasets))
    raise DataError(f"--row: there is no row {number} in {within or datasets[0].name}; datasets: {known}")
