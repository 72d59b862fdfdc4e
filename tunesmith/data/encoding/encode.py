"""Conversations -> ids and which of them are trained, from the template's spans.  Knows roles and the options of the
mask and of the length; knows no file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tunesmith import log
from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.cut import Exact, Tokens, shorten, split
from tunesmith.data.encoding.vocabulary import FIXED, Run, Vocabulary
from tunesmith.log import DataError
from tunesmith.templates.conversation import ChatFormat, Conversation, Message, Piece, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERING = ("assistant", "function")
_CONTROL_LIKE = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>|<(?:start|end)_of_\w+>")


@dataclass(slots=True)
class Encoded:
    """Encoded rows one after another.  `ids`: int32 [tokens]; `trained`: bool [tokens], or how much each token weighs as
    float32 [tokens]; `lengths`: int64 [rows]."""

    ids: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray

    def rows(self) -> Iterator[Tokens]:
        """Ids of each row, and which are trained."""
        ends = np.cumsum(self.lengths).tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            yield self.ids[start:end], self.trained[start:end]


class Encoder:
    """Encodes by one tokenizer, one chat format and the options of the data.  Travels to worker processes."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase | Vocabulary", chat_format: ChatFormat | None, cfg: DataConfig
    ):
        self.chat_format, self.cfg = chat_format, cfg
        stop_words = chat_format.stop_words if chat_format else ()
        self.vocabulary = (
            tokenizer
            if isinstance(tokenizer, Vocabulary)
            else Vocabulary.of(tokenizer, stop_words, allow_special_tokens=cfg.allow_special_tokens)
        )

    def encode(self, groups: Sequence[Sequence[Conversation]]) -> "Outcome":
        """Encode conversations within `cutoff_len` tokens.  Those of a group, such as a preference pair, are kept or
        dropped together.  Raises DataError for a long one when `overflow` is `error`."""
        assert self.chat_format is not None, "conversations need a chat format"
        rows, learned, kept, outcome = list[list[Span]](), list[list[float]](), list[int](), Outcome()
        for index, group in enumerate(groups):
            try:
                rendered = [self.chat_format.render(conversation) for conversation in group]
            except DataError as reason:
                outcome.dropped.append((index, _reason(reason, group[0].where)))
                continue
            kept.append(index)
            rows += rendered
            learned += [trained_spans(spans, each, self.cfg) for spans, each in zip(rendered, group, strict=True)]
        encoded = self.encode_many(rows, learned).rows()
        for index in kept:
            self._keep(outcome, index, groups[index], [next(encoded) for _ in groups[index]])
        return outcome

    def _keep(self, outcome: "Outcome", index: int, group: Sequence[Conversation], samples: list[Tokens]) -> None:
        """Add a group's samples to the outcome: shortened, split or dropped if they are too long."""
        limit, overflow = self.cfg.cutoff_len, self.cfg.overflow
        tokens = max(len(ids) for ids, _ in samples)
        if tokens > limit:
            if overflow == "error":
                raise DataError(f"{group[0].where}: has {tokens} tokens, over cutoff_len {limit} (overflow: error)")
            if overflow == "drop":
                outcome.dropped.append((index, "longer than cutoff_len"))
                return
            cut = True
            if overflow == "split" and len(group) == 1 and not self.cfg.mask_history:
                samples, too_long = split(group[0], limit, self.spell_exactly)
                cut = too_long > 0
                if len(samples) > 1:
                    outcome.split.append((index, len(samples)))
            else:
                samples = shorten(group, limit, self.spell_exactly) or []
            if not samples:
                outcome.dropped.append((index, "no answer left within cutoff_len"))
                return
            if cut:
                outcome.cut.append((index, tokens))
        if not all(trained[1:].any() for _, trained in samples):
            outcome.dropped.append((index, "no token to train"))
            return
        outcome.samples.append(samples)
        outcome.kept.append(index)

    def encode_many(self, rows: Sequence[Sequence[Span]], learned: Sequence[Sequence[float]] | None = None) -> Encoded:
        """Ids of rows of spans, all at once.  Each span is spelled by itself, so that what is trained on begins with
        exactly what is asked when generating.  `learned` replaces the spans' own word on what is trained."""
        runs, starts, trained = list[Run](), list[bool](), list[float]()
        ends = []
        for number, spans in enumerate(rows):
            start = True
            for place, span in enumerate(spans):
                for run in self.vocabulary.runs(span.pieces):
                    runs.append(run)
                    starts.append(start)
                    trained.append(span.learned if learned is None else learned[number][place])
                    start = start and run[0].kind == "token" and not self.vocabulary.token(run[0].text)
            ends.append(len(runs))
        ids, lengths = self.vocabulary.spell_runs(runs, starts)
        total = np.concatenate([[0], np.cumsum(lengths)])
        return Encoded(ids, np.repeat(_weights(trained), lengths), np.diff(total[[0, *ends]]))

    def spell_exactly(self, conversation: Conversation) -> Exact:
        """A conversation's tokens with the origin of each."""
        assert self.chat_format is not None
        spans = self.chat_format.render(conversation)
        ids, trained, answer, origins = list[int](), list[float](), list[bool](), list[int]()
        characters = 0
        for span, own in zip(spans, trained_spans(spans, conversation, self.cfg), strict=True):
            for run in self.vocabulary.runs(span.pieces):
                spelled = self.vocabulary.spell_exactly(run, start=not ids)
                ids += spelled.ids
                trained += [own] * len(spelled.ids)
                answer += [span.learned] * len(spelled.ids)
                origins += [characters + origin if origin != FIXED else FIXED for origin in spelled.origins]
                characters += sum(len(piece.text) for piece in run)
        return Exact(np.array(ids, np.int32), _weights(trained), np.array(answer, bool), np.array(origins, np.int64))

    def encode_prompt(self, spans: Sequence[Span]) -> list[int]:
        """Ids of a prompt, exactly those that training puts before the answer."""
        return [int(id) for id in self.encode_many([spans]).ids]

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Plain texts, each before the tokenizer's eos, and behind its bos where it writes one by itself; every token is
        trained."""
        bos = (Piece("bos", "token"),) if self.vocabulary.writes_bos else ()
        rows = [(*bos, Piece(text, "data"), Piece("eos", "token")) for text in texts]
        return self.encode_many([[Span(each, learned=True, role="assistant")] for each in rows])

    def check_format(self, conversation: Conversation) -> None:
        """Warn once of the template's control tokens that the vocabulary lacks, as seen in one conversation."""
        assert self.chat_format is not None
        missing = dict[str, None]()
        for span in self.chat_format.render(conversation):
            text = "".join(piece.text for piece in span.pieces if piece.kind == "control")
            words = [*_CONTROL_LIKE.findall(text), *(w for w in self.chat_format.stop_words if w in text)]
            missing |= dict.fromkeys(word for word in words if not self.vocabulary.has(word))
        if missing:
            ends = [word for word in missing if word in self.chat_format.stop_words]
            log.warn(
                "template",
                f"{self.chat_format.name}: the tokenizer has no token for {', '.join(missing)}; spelled as plain text"
                + (f", so that {ends[0]} ends an answer as words, not as one token" if ends else ""),
            )


@dataclass(slots=True)
class Outcome:
    """What became of groups of conversations, by their place in the list."""

    samples: list[list[Tokens]] = field(default_factory=list)
    """Each kept group's: as many as it has conversations, or more where one was split."""
    kept: list[int] = field(default_factory=list)
    dropped: list[tuple[int, str]] = field(default_factory=list)
    """Place and reason."""
    cut: list[tuple[int, int]] = field(default_factory=list)
    """Place, and tokens before it was shortened."""
    split: list[tuple[int, int]] = field(default_factory=list)
    """Place, and the samples it became."""


def trained_spans(spans: Sequence[Span], conversation: Conversation, cfg: DataConfig) -> list[float]:
    """How much each span is trained, from 0 on, True being 1: what the template says, narrowed or widened by the options and
    by the messages."""
    trained: list[float] = [
        cfg.train_on_prompt
        or (span.learned and span.role in cfg.train_roles)
        or (span.role in cfg.train_roles and span.role not in ANSWERING)
        for span in spans
    ]
    messages = conversation.messages
    if any(message.loss is not None for message in messages):
        trained = [_override(messages, span, own) for span, own in zip(spans, trained, strict=True)]
    if cfg.mask_history:
        last = max((span.message for span, own in zip(spans, trained, strict=True) if own), default=-1)
        trained = [own if span.message == last else False for span, own in zip(spans, trained, strict=True)]
    return trained


def _override(messages: Sequence[Message], span: Span, learned: float) -> float:
    loss = messages[span.message].loss if span.message >= 0 else None
    if loss is None:
        return learned
    return loss if span.learned or span.role not in ANSWERING else False


def _weights(trained: Sequence[float]) -> np.ndarray:
    """Which are trained, bool; how much each is, float32, where some are neither wholly nor not at all."""
    weights = np.array(trained, dtype=np.float32)
    whole = weights != 0
    return whole if (weights == whole).all() else weights


def _reason(error: DataError, where: str) -> str:
    """What a template found wrong, without the row and its particulars."""
    return str(error).removeprefix(f"{where}: ").split(":")[0]
