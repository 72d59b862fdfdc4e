"""A conversation and a template -> spans, learned or not.  Knows no family, no tokenizer and no Jinja.

Text is built piece by piece, never by replacing in text that already holds a row's words.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from tunesmith.log import OptionError
from tunesmith.templates.chat_messages import Style, as_chat
from tunesmith.templates.conversation import Conversation, Message, Piece, Role, Span, Thinking
from tunesmith.templates.dialects import DIALECTS
from tunesmith.templates.template import Slot, Template, control, data, join, parse_slot
from tunesmith.templates.tools import Call, Tool, read_tools, split_calls

_ANSWERS = ("assistant", "function")
_PROMPTS = ("user", "observation")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An assistant's turn taken apart: a thought with its marks, and the words after it."""

    opening: str
    thought: str
    closing: str
    words: str
    empty: str = ""
    """An empty thought to be written before it."""
    empty_learned: bool = False


class TemplateFormat:
    """A named template at work: the ChatFormat of a Template."""

    def __init__(self, template: Template):
        if template.tool_format not in DIALECTS:
            known = ", ".join(DIALECTS)
            raise OptionError(f"tool_format: unknown dialect '{template.tool_format}'; allowed: {known}")
        self.template = template
        self.dialect = DIALECTS[template.tool_format]
        user, assistant = _slot(template, "user", template.user), _slot(template, "assistant", template.assistant)
        observation = _slot(template, "observation", template.observation) if template.observation else user
        function = _slot(template, "function", template.function) if template.function else assistant
        self._slots: dict[Role, Slot] = {
            "system": _slot(template, "system", template.system),
            "user": user,
            "assistant": assistant,
            "observation": observation,
            "function": function,
        }
        self._prefix = _slot(template, "prefix", template.prefix).before
        opening, closing = (re.escape(word.strip()) for word in template.thought_words)
        self._thought = re.compile(rf"({opening})(.*?)({closing})", re.DOTALL)
        self._empty_thought = template.empty_thought or "".join(template.thought_words)

    @property
    def name(self) -> str:
        """The template's name."""
        return self.template.name

    @property
    def stop_words(self) -> tuple[str, ...]:
        """Tokens besides the tokenizer's eos that end a turn."""
        return self.template.stop_words

    def render(self, conversation: Conversation) -> list[Span]:
        """Spans of the whole conversation; the assistant's are learned.  DataError: calls or tools that are not JSON."""
        return self._spans(conversation, prompt=False)

    def prompt(self, conversation: Conversation) -> list[Span]:
        """Spans up to where the model is to answer; none is learned."""
        return [dataclasses.replace(span, learned=False) for span in self._spans(conversation, prompt=True)]

    def calls(self, answer: str, tools: str = "") -> list[Call]:
        """The tool calls in a model's answer, [] when it has none.  `tools`: the row's, for the arguments' types."""
        return self.dialect.calls.parse(self._taken_apart(answer).words, read_tools(tools))

    def chat_template(self) -> str:
        """A Jinja chat template that gives the same text."""
        from tunesmith.templates.write_jinja import write_jinja

        return write_jinja(self.template)

    def as_messages(
        self, conversation: Conversation, *, prompt: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Messages and tools with which `chat_template` gives the same text, as a prompt or not."""
        written = json.loads(conversation.tools) if conversation.tools.strip() else None
        messages = as_chat(conversation, Style()).messages
        return messages, [written] if isinstance(written, dict) else written

    def _spans(self, conversation: Conversation, *, prompt: bool) -> list[Span]:
        tools = read_tools(conversation.tools, conversation.where)
        system, messages, first = _system_and_turns(conversation)
        thinking = conversation.thinking or self.template.thinking
        answers = self._answers(messages, thinking, history_only=prompt)
        spans = _Spans(first)
        outside, inside = [*self._prefix], self._system_pieces(system, tools, conversation.tools)
        for index, message in enumerate(messages):
            if not self._folds(messages, index):
                outside, inside = [*outside, *inside], []
            if answer := answers.get(index):
                outside += self._generation(messages, index) + ([] if answer.empty_learned else [control(answer.empty)])
                spans.add(outside, False, "user", index - 1)
                spans.add(self._learned(message, answer, tools, conversation.where), True, message.role, index)
                outside = []
            elif message.role == "system":
                inside += self._slots["system"].fill([data(message.content)])
            else:
                answered = index + 1 in answers or (prompt and index + 1 == len(messages))
                turn = self._asking(messages, index, inside, answered)
                spans.add([*outside, *turn], False, message.role, index)
                outside, inside = [], []
        outside += inside
        if prompt:
            outside += self._generation(messages, len(messages))
            if self._masks_thought(thinking):
                outside.append(control(self._empty_thought))
        spans.add(outside, False, "user", len(messages) - 1)
        return spans.spans

    def _folds(self, messages: Sequence[Message], index: int) -> bool:
        """Whether a system text waiting before the turn `index` goes inside a user turn, this or the one after it."""
        turn = messages[index].role
        following = messages[index + 1].role if turn == "system" and index + 1 < len(messages) else turn
        return self.template.system_in_user and following == "user"

    def _asking(self, messages: Sequence[Message], index: int, inside: Sequence[Piece], answered: bool) -> list[Piece]:
        """The pieces of a turn that is no answer; `answered`: one follows.  Results in a row can be one turn."""
        message, separator = messages[index], self.template.observation_separator
        pieces = self._slots[message.role].fill([*inside, data(message.content)], answer=answered)
        if message.role != "observation" or not separator:
            return pieces
        slot = self._slots["observation"]
        if index + 1 < len(messages) and messages[index + 1].role == "observation":
            pieces = [*pieces[: len(pieces) - len(slot.after)], control(separator)]
        if index > 0 and messages[index - 1].role == "observation":
            pieces = pieces[len(slot.before) :]
        return pieces

    def _generation(self, messages: Sequence[Message], index: int) -> list[Piece]:
        """The generation prompt before an answer at `index`, where no turn before it has already said it."""
        said = index > 0 and messages[index - 1].role in _PROMPTS
        return [] if said else list(self._slots["user"].answer)

    def _masks_thought(self, thinking: Thinking | None) -> bool:
        """Whether prompts end with an empty thought: the model is told not to think."""
        template = self.template
        return template.reasoning and template.enable_thinking is False and thinking in (None, "empty_masked")

    def _system_pieces(self, system: str | None, tools: Sequence[Tool], source: str) -> list[Piece]:
        words = control(self.template.default_system) if system is None else data(system)
        pieces = [words] if words.text else []
        if tools:
            pieces += self.dialect.tools.write(tools, source, self.template.date_string)
        return self._slots["system"].fill(pieces) if pieces else []

    def _learned(self, message: Message, answer: Answer, tools: Sequence[Tool], where: str) -> list[Piece]:
        """The pieces of an answer.  A thought's marks are the template's words, what they hold is the row's."""
        mark = control if self.template.reasoning else data
        pieces = [mark(answer.opening), data(answer.thought), mark(answer.closing)]
        if message.role == "function":
            before, calls = split_calls(answer.words, where)
            pieces += [data(before), *self.dialect.calls.write(calls, tools)]
        else:
            pieces.append(data(answer.words))
        empty = [control(answer.empty)] if answer.empty_learned else []
        return [*empty, *self._slots[message.role].fill(pieces)]

    def _answers(
        self, messages: Sequence[Message], thinking: Thinking | None, *, history_only: bool
    ) -> dict[int, Answer]:
        """The assistant's turns by index, thoughts kept, removed or added as the template's policy says."""
        enable = self.template.enable_thinking if self.template.reasoning else None
        strip_all = thinking == "strip" or (thinking is None and enable is False)
        add = thinking == "empty_masked" or (thinking is None and enable is not None)
        marks = [word.strip() for word in self.template.thought_words]
        indices = [index for index, message in enumerate(messages) if message.role in _ANSWERS]
        answers = {}
        for index in indices:
            content = messages[index].content
            history = history_only or index != indices[-1]
            if strip_all or (thinking == "strip_history" and history):
                content = self._thought.sub("", content).lstrip("\n")
            answer = self._taken_apart(content)
            if add and not any(mark in content for mark in marks):
                learned = thinking is None and enable is True
                answer = dataclasses.replace(answer, empty=self._empty_thought, empty_learned=learned)
            answers[index] = answer
        return answers

    def _taken_apart(self, content: str) -> Answer:
        start = len(content) - len(content.lstrip())
        if match := self._thought.match(content, start):
            return Answer(content[: match.end(1)], match[2], match[3], content[match.end() :])
        return Answer("", "", "", content)


class _Spans:
    """Spans in the making.  `first`: how many messages of the conversation stand before the first turn."""

    def __init__(self, first: int) -> None:
        self.spans: list[Span] = []
        self.first = first

    def add(self, pieces: Sequence[Piece], learned: bool, role: Role, message: int) -> None:
        """Append a span, or lengthen the last one when both are unlearned parts of one message; nothing if empty."""
        message += self.first
        last = self.spans[-1] if self.spans else None
        if not (joined := join(pieces)):
            return
        if last and not learned and not last.learned and last.message == message:
            self.spans[-1] = dataclasses.replace(last, pieces=join([*last.pieces, *joined]))
        else:
            self.spans.append(Span(joined, learned, role, message))


def _slot(template: Template, field: str, text: str) -> Slot:
    return parse_slot(text, f"template '{template.name}', {field}")


def _system_and_turns(conversation: Conversation) -> tuple[str | None, Sequence[Message], int]:
    """The system prompt, also when it is the first message; the turns after it, and the index of the first."""
    messages = conversation.messages
    if conversation.system is None and messages and messages[0].role == "system":
        return messages[0].content, messages[1:], 1
    return conversation.system, messages, 0
