"""Datasets -> what is wrong with them: each row by itself, rows against rows, training data against evaluation data, and
tokens where there is a tokenizer.  Knows datasets; knows no model and no screen."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

import numpy as np

from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.faults import lint_rows
from tunesmith.data.faults.findings import Findings
from tunesmith.data.faults.languages import language
from tunesmith.data.faults.lint_rows import Words, squeezed
from tunesmith.data.faults.near_duplicates import Texts
from tunesmith.data.keeping.arrays import PLAIN, ArraySamples
from tunesmith.data.keeping.prepare import CONVERSATIONS, Kind, PreparedRows, Preparer
from tunesmith.data.reading import mix
from tunesmith.data.reading.files import Meter, Row
from tunesmith.data.reading.formats import Reader, Unusable
from tunesmith.data.reading.sources import Dataset
from tunesmith.log import DataError
from tunesmith.templates.compare import PROBES
from tunesmith.templates.conversation import Conversation, Message

CHUNK_ROWS = 1000
RARE_SHARE, FEWEST_ROWS = 0.02, 100
"""A language is rare when so small a share of at least so many rows is in it."""

OnProgress = Callable[[int], None]
"""Told the rows that are done."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a row says: conversations, or one text as the question of a conversation without an answer."""

    conversations: tuple[Conversation, ...]
    marks: tuple[int, ...] = (PLAIN,)
    """What each answer is."""
    is_text: bool = False

    @property
    def prompt(self) -> bytes:
        """Equal for rows that ask the same, white space aside."""
        first = self.conversations[0]
        return _digest([first.system or "", *(m.content for m in first.messages[: None if self.is_text else -1])])

    @property
    def whole(self) -> bytes:
        """Equal for rows that say the same, white space aside."""
        return _digest([*(m.content for each in self.conversations for m in each.messages), *self._around()])

    def _around(self) -> list[str]:
        return [self.conversations[0].system or "", self.conversations[0].tools, str(self.marks)]

    @property
    def text(self) -> str:
        """All its words."""
        answers = [each.messages[-1].content for each in self.conversations[1:]]
        return "\n".join([*(message.content for message in self.conversations[0].messages), *answers])


def kind_of(dataset: Dataset, stage: str) -> Kind:
    """What the rows of a dataset are: all are texts for the stage `pt`, other stages do not matter."""
    shape = dataset.shape
    if stage == "pt" or shape.formatting == "text":
        return "text"
    return "pair" if shape.ranking else "judged" if shape.columns.kto_tag else "conversation"


def read(reader: Reader, row: Row, kind: Kind) -> Said:
    """What a row says.  Raises Unusable."""
    if kind == "text":
        return Said((Conversation([Message("user", reader.text(row))], where=row.where),), is_text=True)
    return Said(*CONVERSATIONS[kind](reader, row))


def prompts(datasets: Sequence[Dataset], stage: str) -> set[bytes]:
    """The prompts of all rows of some datasets that can be read."""
    found = set[bytes]()
    for dataset in datasets:
        reader, kind = Reader(dataset.shape), kind_of(dataset, stage)
        for row in dataset.source.read():
            with contextlib.suppress(Unusable):
                found.add(read(reader, row, kind).prompt)
    return found


def within(said: Said, words: Words) -> Iterator[tuple[str, str]]:
    """What is wrong with a row by itself: checks and what exactly they found, each once."""
    if said.is_text:
        yield from lint_rows.look_at_text(said.conversations[0].messages[0].content, words)
        return
    yield from dict.fromkeys(found for each in said.conversations for found in lint_rows.look(each, words))
    answers = {squeezed(each.messages[-1].content) for each in said.conversations}
    if len(answers) < len(said.conversations):
        yield "same_answers", ""


class Linter:
    """Looks at datasets one after another.  `encoder` None: nothing is known of tokens.  `words`: control tokens."""

    def __init__(self, cfg: DataConfig, encoder: Encoder | None, words: Words, *, seed: int, stage: str):
        self.cfg, self.encoder, self.words, self.seed, self.stage = cfg, encoder, words, seed, stage
        self.findings = Findings()
        self.seen = Seen()
        self.cut: list[tuple[int, str]] = []
        """Tokens of the rows that are too long, and the rows."""
        self.kept: list[str] = []
        """The row of each sample to train on."""
        self.keys: list[np.ndarray] = [np.zeros(0, np.uint64)]
        """The keys of those samples, part by part."""

    def lint(
        self, trained: Sequence[Dataset], evaluated: Sequence[Dataset], on_progress: OnProgress = lambda done: None
    ) -> Findings:
        """Everything found in data to train on and to evaluate on.  Raises DataError for files that cannot be read."""
        done = 0
        for datasets, evaluates in ((evaluated, True), (trained, False)):
            for dataset in datasets:
                for rows in self._chunks(dataset):
                    self._look(dataset, rows, evaluates)
                    done += len(rows)
                    on_progress(done)
        for tokens, where in sorted(self.cut, key=lambda each: -each[0]):
            self.findings.add("too_long", where, f"{tokens:,} tokens, over cutoff_len {self.cfg.cutoff_len:,}")
        self._hold_out()
        self.seen.compare(self.findings)
        if self.encoder is not None and any(kind_of(dataset, self.stage) != "text" for dataset in trained):
            self._check_endings(self.encoder)
        return self.findings

    def _chunks(self, dataset: Dataset) -> Iterator[list[Row]]:
        most = mix.limit(dataset, self.cfg.max_samples)
        rows = mix.take(dataset, most, self.cfg.sample_strategy, self.seed, Meter())
        while chunk := list(islice(rows, CHUNK_ROWS)):
            yield chunk

    def _look(self, dataset: Dataset, rows: list[Row], evaluates: bool) -> None:
        """Look at some rows of a dataset."""
        findings, kind = self.findings, kind_of(dataset, self.stage)
        findings.read[dataset.name] = findings.read.get(dataset.name, 0) + len(rows)
        reader = Reader(dataset.shape, self.cfg.placeholders)
        usable, said = list[Row](), list[Said]()
        for row in rows:
            try:
                one = read(reader, row, kind)
            except Unusable as reason:
                findings.add(lint_rows.unusable(str(reason)), row.where, str(reason))
                continue
            usable.append(row)
            said.append(one)
            for check, detail in within(one, self.words):
                findings.add(check, row.where, detail)
        self.seen.add([row.where for row in usable], said, evaluates)
        if self.encoder is not None and (kind == "text") == (self.encoder.chat_format is None):
            prepared = Preparer(self.encoder, kind, strict=False)(reader, usable)
            self._look_at_losses(prepared)
            if not evaluates:
                samples = ArraySamples(prepared.rows)
                self.kept += [samples.where(index) for index in range(len(samples))]
                self.keys.append(samples.keys)

    def _look_at_losses(self, prepared: PreparedRows) -> None:
        """Note what preparing rows lost."""
        known = {found.row for found in self.findings.found.get("tools", ())}
        for reason, where in prepared.dropped:
            if where not in known:  # without tools that can be read, templates refuse a row
                nothing_left = reason.startswith("no ")
                self.findings.add("no_room" if nothing_left else "refused", where, reason)
        self.cut += [(tokens, where) for where, tokens in prepared.cut]

    def _hold_out(self) -> None:
        """Mark the rows that `val_size` will hold out, so that what resembles them is found."""
        if not self.cfg.val_size or not self.kept:
            return
        held_out = {
            self.kept[sample] for sample in mix.split(np.concatenate(self.keys), self.cfg.val_size, self.seed)[1]
        }
        self.seen.evaluates = [row in held_out for row in self.seen.rows]

    def _check_endings(self, encoder: Encoder) -> None:
        """Whether a plain answer ends with a token that stops it."""
        assert encoder.chat_format is not None
        for conversation in PROBES[:2]:
            try:
                spans = encoder.chat_format.render(conversation)
            except DataError:
                continue
            for span in (span for span in spans if span.learned):
                words = max((at for at, piece in enumerate(span.pieces) if piece.kind == "data"), default=-1)
                behind = span.pieces[words + 1 :]
                controls = encoder.vocabulary.controls
                if not any(piece.kind == "token" or any(word in piece.text for word in controls) for piece in behind):
                    self.findings.add("end_token", "", f"template {encoder.chat_format.name}")
                    return


@dataclass(slots=True)
class Seen:
    """All rows so far, as little of each as tells whether another one says the same."""

    rows: list[str] = field(default_factory=list)
    evaluates: list[bool] = field(default_factory=list)
    prompts: list[bytes] = field(default_factory=list)
    wholes: list[bytes] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    texts: Texts = field(default_factory=Texts)

    def add(self, rows: Sequence[str], said: Sequence[Said], evaluates: bool) -> None:
        """Take the next rows."""
        texts = [each.text for each in said]
        self.rows += rows
        self.evaluates += [evaluates] * len(rows)
        self.prompts += [each.prompt for each in said]
        self.wholes += [each.whole for each in said]
        self.languages += [language(text) for text in texts]
        self.texts.add(texts)

    def compare(self, findings: Findings) -> None:
        """Find rows that say the same as others, or what few others say."""
        same = self._same(findings)
        for each in self.texts.alike():
            if each.later in same or each.earlier in same:
                continue
            one, other = each.later, each.earlier
            if self.evaluates[one] and not self.evaluates[other]:
                one, other = other, one
            check = "near_duplicate" if self.evaluates[one] == self.evaluates[other] else "near_overlap"
            findings.add(check, self.rows[one], f"{each.share:.0%} like {self.rows[other]}")
        self._compare_languages(findings)

    def _same(self, findings: Findings) -> set[int]:
        """Rows to train on that say or ask exactly what another row does."""
        first_whole, first_prompt = dict[tuple[bool, bytes], int](), dict[tuple[bool, bytes], int]()
        same = set[int]()
        for number, (prompt, whole) in enumerate(zip(self.prompts, self.wholes, strict=True)):
            side, where = self.evaluates[number], self.rows[number]
            earlier = first_whole.setdefault((side, whole), number)
            asked = first_prompt.setdefault((side, prompt), number)
            evaluated = None if side else first_prompt.get((True, prompt))
            if evaluated is not None:
                findings.add("overlap", where, f"as {self.rows[evaluated]}")
            if earlier != number:
                findings.add("duplicate", where, f"as {self.rows[earlier]}")
            elif asked != number:
                findings.add("other_answers", where, f"as {self.rows[asked]}")
            if evaluated is not None or earlier != number:
                same.add(number)
        return same

    def _compare_languages(self, findings: Findings) -> None:
        counts = Counter(filter(None, self.languages))
        rows = counts.total()
        rare = {name for name, count in counts.items() if count <= RARE_SHARE * rows}
        if rows < FEWEST_ROWS:
            return
        for where, name in zip(self.rows, self.languages, strict=True):
            if name in rare:
                findings.add("rare_language", where, str(name))


def _digest(texts: Sequence[str]) -> bytes:
    whole = "\0".join(squeezed(text) for text in texts)
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=12).digest()
