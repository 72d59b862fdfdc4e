"""Proof before rows are prepared: the model is asked with the very tokens it is trained behind, and by `apply_chat_template`
with the same.  Knows a chat format, a tokenizer and the first rows; prepares nothing."""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from tunesmith import log
from tunesmith.data.encoding.encode import ANSWERING, Encoder, trained_spans
from tunesmith.data.keeping.prepare import CONVERSATIONS, Kind
from tunesmith.data.reading.formats import Reader, Unusable
from tunesmith.data.reading.sources import Dataset
from tunesmith.log import DataError
from tunesmith.templates.compare import EMPTY_THOUGHT, PROBES, parted, written
from tunesmith.templates.conversation import ChatFormat, Conversation, Message, Span
from tunesmith.templates.jinja import JinjaFormat
from tunesmith.templates.render import TemplateFormat
from tunesmith.templates.sandbox import FIXED_DATE
from tunesmith.templates.several import SeveralFormats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS, ROWS_IN_ALL, LOOKED_AT = 16, 64, 100
"""Rows of each dataset that are tried, of all together, and among how many of each they are looked for."""
ANSWERS, CHARACTERS = 3, 40_000
"""Answers of a row that are tried, and characters of all rows together: those that do not fit are left out."""

_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_EMPTY = re.compile(r"<think>\s*(?:</think>|\Z)")


def prove(tokenizer: "PreTrainedTokenizerBase", encoder: Encoder, datasets: Sequence[Dataset], kind: Kind) -> None:
    """Try the chat format on each dataset's first rows and on generated conversations: tell that all agrees, or warn
    once of the first that does not.  Raises DataError naming file and row where another answer than the row's would be
    trained.  Takes well under a second."""
    chat = encoder.chat_format
    if chat is None:
        return
    each = min(ROWS, max(1, ROWS_IN_ALL // max(1, len(datasets))))
    rows = [row for dataset in datasets for row in islice(_first_rows(dataset, kind, encoder), each)]
    _check_format(encoder, rows)
    tried = Trial(tokenizer, encoder, chat, _fitting(map(_beginning, rows)))
    generated = Trial(tokenizer, encoder, copy.deepcopy(chat), PROBES)
    with _saying(tokenizer, chat.chat_template()):
        tried.run()
        with log.muted():  # what the template does with conversations that nobody has is told below
            generated.run()
    if isinstance(chat, TemplateFormat):
        _note_empty_thoughts(chat, rows)
    if problem := next(iter([*tried.problems, *generated.problems]), None):
        among = f" (so in {len(tried.problems)} of {len(tried.conversations)} rows)" if len(tried.problems) > 1 else ""
        log.warn("template", f"{chat.name}: {problem}{among}")
    elif isinstance(chat, JinjaFormat | SeveralFormats):
        log.note("template", f"{chat.name}: {_told(chat, tried, generated)}")


@dataclass
class Trial:
    """Conversations that a chat format is tried on, and what came of it."""

    tokenizer: "PreTrainedTokenizerBase"
    encoder: Encoder
    chat: ChatFormat
    conversations: Sequence[Conversation]
    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    empty_apart: bool = False
    """Whether earlier answers are asked without the empty thoughts behind which they are trained."""
    closing: str = ""
    """What stands behind a last answer besides what the template writes."""

    def run(self) -> None:
        """Try all conversations.  Raises DataError where another answer than the row's would be trained."""
        for conversation in self.conversations:
            try:
                spans = self.chat.render(conversation)
            except DataError as reason:
                self.refused.append(str(reason))
                continue
            if not isinstance(self.chat, TemplateFormat):
                self._check_answers(spans, conversation)
            if problem := self._first_problem(spans, conversation):
                self.problems.append(f"{conversation.where}: {problem}")

    def _check_answers(self, spans: Sequence[Span], conversation: Conversation) -> None:
        """Raise DataError unless each answer that is trained says what the row's does."""
        cfg = self.encoder.cfg
        thinking = conversation.thinking or cfg.thinking or cfg.template_args.get("thinking")
        thinks = thinking in (None, "as_data", "empty_masked") and cfg.enable_thinking is not False
        for span in (span for span in spans if span.learned and span.role == "assistant"):
            content = conversation.messages[span.message].content
            thought = _THOUGHT.search(content)
            wanted = [content.rpartition("</think>")[2], *([thought[1]] if thought and thinks else [])]
            if any(words.strip() not in span.text for words in wanted):
                raise DataError(
                    f"{conversation.where}: the answer that would be trained (message {span.message + 1}) is not the "
                    f"row's: the chat template makes it {span.text[:60]!r}"
                )

    def _first_problem(self, spans: Sequence[Span], conversation: Conversation) -> str | None:
        """The first way in which asking is not as training, in words."""
        before: list[Span] = []
        trained = trained_spans(spans, conversation, self.encoder.cfg)
        for span, own in zip(spans, trained, strict=True):
            if span.learned and own:
                asked = replace(conversation, messages=conversation.messages[: span.message])
                found = self._asked_otherwise(before, asked)
                if found:
                    return f"the answer (message {span.message + 1}) {found}"
            before.append(span)
        return self._written_otherwise(spans, conversation)

    def _asked_otherwise(self, before: Sequence[Span], asked: Conversation) -> str | None:
        """How the prompt for an answer differs from what it is trained behind, or from what others would ask."""
        try:
            prompt = self.chat.prompt(asked)
        except DataError as reason:
            return f"is trained, but cannot be asked for: {reason}"
        trained, ours = self._text(before), self._text(prompt)
        if not (trained.startswith(ours) and EMPTY_THOUGHT.fullmatch(trained[len(ours) :] or "</think>")):
            if _without_empty_thoughts(trained) != _without_empty_thoughts(ours):
                one, other = parted(trained, ours)
                return f"is trained behind {one!r} and asked for with {other!r}{self._way_out(asked)}"
            self.empty_apart = True
        if trained == ours and self.encoder.encode_prompt(before) != self.encoder.encode_prompt(prompt):
            return "is trained behind other tokens than it is asked for with, though the words are the same"
        if isinstance(self.chat, TemplateFormat) and asked.thinking:
            return None  # the saved template knows the options, not a row's own word
        theirs = self._applied(asked, prompt=True)
        if theirs != ours:
            one, other = parted(ours, theirs)
            return f"is asked for with {one!r}, and by apply_chat_template with {other!r}"
        if self._is_plain(prompt) and self.encoder.encode_prompt(prompt) != self._spelled(theirs):
            return "is asked for with other tokens than apply_chat_template gives, though the words are the same"
        return None

    def _written_otherwise(self, spans: Sequence[Span], conversation: Conversation) -> str | None:
        """How the whole conversation differs from what `apply_chat_template` makes of it, thoughts aside."""
        if conversation.thinking or any("</think>" in message.content for message in conversation.messages):
            return None
        ours, theirs = self._text(spans), self._applied(conversation, prompt=False)
        if ours.startswith(theirs) and len(ours) - len(theirs) < 40:
            self.closing = ours.removeprefix(theirs)
            return None
        if _without_empty_thoughts(ours) == _without_empty_thoughts(theirs):
            return None
        one, other = parted(ours, theirs)
        return f"as a whole is {one!r}, and by apply_chat_template {other!r}"

    def _way_out(self, asked: Conversation) -> str:
        if not any("</think>" in message.content for message in asked.messages):
            return ""
        return (
            "; the template drops earlier thoughts when asking: thinking: strip_history takes them out of the rows, "
            "mask_history: true with it trains last answers alone"
        )

    def _text(self, spans: Sequence[Span]) -> str:
        return written(spans, self.tokenizer.special_tokens_map)

    def _applied(self, conversation: Conversation, *, prompt: bool) -> str:
        """What others get for the conversation; the reason where they get nothing."""
        messages, tools = self.chat.as_messages(conversation, prompt=prompt)
        try:
            return str(
                self.tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=prompt, tokenize=False)
            )
        except Exception as reason:  # whatever a template does wrong is what the user is to know
            return f"(refused: {reason})"

    def _spelled(self, text: str) -> list[int]:
        """As apply_chat_template spells its text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _is_plain(self, spans: Sequence[Span]) -> bool:
        """Whether no words of the row look like a control token, which others would take for one."""
        vocabulary = self.encoder.vocabulary
        return vocabulary.allow_special_tokens or not any(
            piece.kind == "data" and vocabulary.pattern.search(piece.text) for span in spans for piece in span.pieces
        )


def _told(chat: ChatFormat, tried: Trial, generated: Trial) -> str:
    """What was proved, and what else there is to know of the template."""
    proved = len(generated.conversations) - len(generated.refused)
    lines = [
        f"proved on {len(tried.conversations) - len(tried.refused)} rows and {proved} generated conversations: asked as "
        "trained, token for token, by apply_chat_template too"
    ]
    if tried.refused:
        lines.append(f"it refuses {len(tried.refused)} of {len(tried.conversations)} rows: {tried.refused[0]}")
    elif generated.refused:
        kinds = [reason.split(": ")[0].removeprefix("a conversation ") for reason in generated.refused]
        lines.append(f"it refuses conversations {', '.join(kinds)}")
    if tried.empty_apart:
        lines.append("earlier answers are asked without the empty thoughts behind which they are trained")
    if closing := tried.closing or generated.closing:
        lines.append(f"{closing!r}, with which the next turn begins, is trained as the end of answers")
    if "strftime_now" in str(chat.chat_template()):
        lines.append(f"its date is always {FIXED_DATE:%d %b %Y}, in the saved template too")
    return "; ".join(lines)


def _note_empty_thoughts(chat: TemplateFormat, rows: Sequence[Conversation]) -> None:
    """Tell when rows get empty thoughts that are trained, and how that is switched off."""
    template = chat.template
    if not template.reasoning or template.enable_thinking is not True or template.thinking is not None:
        return
    opening = template.thought_words[0].strip()
    if any(
        message.role in ANSWERING and row.thinking is None and opening not in message.content
        for row in rows
        for message in row.messages
    ):
        log.note(
            "enable_thinking",
            f"{chat.name} begins answers without a thought with an empty one, which is trained; null leaves them as they "
            "are, false puts it into the prompt",
        )


def _check_format(encoder: Encoder, rows: Sequence[Conversation]) -> None:
    """Check the format's control tokens against the vocabulary, on the first row that it writes."""
    for row in rows:
        try:
            encoder.check_format(row)
        except DataError:
            continue
        return


def _first_rows(dataset: Dataset, kind: Kind, encoder: Encoder) -> Iterator[Conversation]:
    reader, read = Reader(dataset.shape, encoder.cfg.placeholders), CONVERSATIONS[kind]
    for row in islice(dataset.source.read(), LOOKED_AT):
        try:
            yield read(reader, row)[0][0]
        except (Unusable, DataError):
            continue


def _beginning(conversation: Conversation) -> Conversation:
    """The conversation up to its third answer."""
    ends = [number for number, message in enumerate(conversation.messages, start=1) if message.role in ANSWERING]
    return replace(conversation, messages=_whole_turn(conversation.messages, ends[:ANSWERS]))


def _whole_turn(messages: Sequence[Message], ends: Sequence[int]) -> Sequence[Message]:
    return messages[: ends[-1]] if ends else messages


def _without_empty_thoughts(text: str) -> str:
    """The text without empty thoughts and the white space around them."""
    return "".join(_EMPTY.sub("", text).split())


def _fitting(rows: Iterable[Conversation]) -> list[Conversation]:
    """The rows that have room in CHARACTERS."""
    left, fitting = CHARACTERS, list[Conversation]()
    for row in rows:
        if (size := _size(row)) <= left:
            left -= size
            fitting.append(row)
    return fitting


def _size(conversation: Conversation) -> int:
    return len(conversation.tools) + sum(len(message.content) for message in conversation.messages)


@contextmanager
def _saying(tokenizer: "PreTrainedTokenizerBase", template: str | dict[str, str]) -> Iterator[None]:
    """The tokenizer with the chat template with which it will be saved."""
    own = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        yield
    finally:
        tokenizer.chat_template = own
