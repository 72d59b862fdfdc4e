"""Tokens and spans -> segments to show: neighbours that one speaker says and that are all trained alike or all not.  Knows
no screen and no page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tunesmith.data.telling.inspect import SeenSample, Speaker, asked, owner
from tunesmith.generate.text import AnswerText
from tunesmith.templates.conversation import Conversation, Span

Decode = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token's text; '' for one that is only a part of a character, which its last token shows.  `id` None: there is no
    tokenizer."""

    text: str
    id: int | None = None


@dataclass(slots=True)
class Segment:
    """Neighbouring tokens of one speaker.  `cut_before`: how many tokens were cut away in front of it."""

    speaker: Speaker
    trained: bool
    tokens: list[ShownToken] = field(default_factory=list)
    cut_before: int = 0
    weight: float = 1.0
    """How much the loss of its tokens counts, where they are trained."""

    @property
    def training(self) -> str:
        """Whether its tokens are trained, in words: '', 'trained', 'trained with weight 0.5'."""
        if not self.trained:
            return ""
        return "trained" if self.weight == 1 else f"trained with weight {self.weight:.4g}"

    @property
    def text(self) -> str:
        """All its text."""
        return "".join(token.text for token in self.tokens)


def segments_of(sample: SeenSample, decode: Decode) -> list[Segment]:
    """A sample's segments in order; a last one without tokens where its end was cut away."""
    segments: list[Segment] = []
    texts = _texts(sample.ids.tolist(), sample.gaps, decode)
    for place, (id, text) in enumerate(zip(sample.ids.tolist(), texts, strict=True)):
        speaker, trained, gap = sample.speakers[place], bool(sample.trained[place]), sample.gaps.get(place, 0)
        weight = float(sample.weights[place]) if sample.weights is not None and trained else 1.0
        _segment(segments, speaker, trained, gap, weight).tokens.append(ShownToken(text, id))
    if behind := sample.gaps.get(len(sample.ids)):
        segments.append(Segment("template", False, cut_before=behind))
    return segments


def segments_of_spans(spans: Iterable[Span], conversation: Conversation) -> list[Segment]:
    """The segments of a conversation's spans, where there is no tokenizer: each piece of text is shown as one token."""
    segments: list[Segment] = []
    said = asked(conversation)
    for span in spans:
        for piece in span.pieces:
            text = f"<{piece.text.upper()}>" if piece.kind == "token" else piece.text
            _segment(segments, owner(span, piece, said), span.learned, 0).tokens.append(ShownToken(text))
    return segments


def _segment(segments: list[Segment], speaker: Speaker, trained: bool, gap: int, weight: float = 1.0) -> Segment:
    """The segment that a token belongs to: the last one, or a new one."""
    last = segments[-1] if segments else None
    if last is None or gap or (last.speaker, last.trained, last.weight) != (speaker, trained, weight):
        last = Segment(speaker, trained, cut_before=gap, weight=weight)
        segments.append(last)
    return last


def _texts(ids: Sequence[int], gaps: dict[int, int], decode: Decode) -> list[str]:
    """Each token's text, as it stands behind the tokens before it."""
    texts: list[str] = []
    answer = AnswerText(decode)
    for place, id in enumerate(ids):
        if place in gaps:
            texts[-1] += answer.end()
            answer = AnswerText(decode)
        texts.append(answer.add(id))
    if texts:
        texts[-1] += answer.end()
    return texts
