"""Rows -> conversations: alpaca, sharegpt, openai messages, plain text.  Knows columns and roles; knows no template and
no token."""

import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from tunesmith import catalog
from tunesmith.data.reading.augment import Augmenter
from tunesmith.data.reading.files import Row, Values
from tunesmith.data.reading.sources import OPENAI_TAGS, Columns, Shape, Tags
from tunesmith.templates.conversation import Conversation, Message, Role, Thinking
from tunesmith.templates.tools import parsed

_ASKING, _ANSWERING = ("user", "observation"), ("assistant", "function")
_PLACEHOLDER = re.compile(r"\{\{(name|author)\}\}")
_MOST_LOSS = 3.4e38
"""What a 32-bit float can hold."""
_Turn = tuple[Role, str, bool | float | None]
Format = Callable[[Values, Columns, Tags], tuple[list[_Turn], str]]
"""What a data format is: a row's turns and its system prompt, from its columns."""


class Unusable(Exception):
    """A row that cannot become a conversation; says why, without what is particular to the row."""


@dataclass(slots=True)
class Reader:
    """Turns the rows of one dataset into conversations or texts.  `unfilled` collects placeholders without a value."""

    shape: Shape
    placeholders: Mapping[str, Any] = field(default_factory=dict)
    unfilled: set[str] = field(default_factory=set)
    augmenter: Augmenter | None = None

    def variations(self, conversation: Conversation, row: Row) -> list[tuple[Conversation, tuple[str, ...]]]:
        """What is trained besides a row's conversation, each with what was changed."""
        return [] if self.augmenter is None else [*self.augmenter.variations(conversation, row.where)]

    def conversation(self, row: Row) -> Conversation:
        """The row as a conversation that ends with an answer.  Raises Unusable."""
        turns, system = _turns(self.shape, row.values)
        return self._checked(turns, system, row)

    def pair(self, row: Row) -> tuple[Conversation, Conversation]:
        """The row as two conversations that differ in their last answer, the chosen and the rejected one; only that
        answer is trained.  Raises Unusable."""
        shape, values = self.shape, row.values
        (chosen, told), (rejected, _) = (
            _answers(shape, values, c) for c in (shape.columns.chosen, shape.columns.rejected)
        )
        asked, system = _asked(shape, values) or (chosen[:-1], told)
        prompt = _untrained(asked)
        return self._checked([*prompt, chosen[-1]], system, row), self._checked([*prompt, rejected[-1]], system, row)

    def judged(self, row: Row) -> tuple[Conversation, bool]:
        """The row as a conversation, of which only the last answer is trained, and whether that answer is desirable.
        Raises Unusable."""
        turns, system = _turns(self.shape, row.values)
        desirable = _require(row.values, self.shape.columns.kto_tag)
        if not isinstance(desirable, bool):
            raise Unusable(f"'{self.shape.columns.kto_tag}' is neither true nor false")
        return self._checked([*_untrained(turns[:-1]), *turns[-1:]], system, row), desirable

    def _checked(self, turns: list[_Turn], system: str, row: Row) -> Conversation:
        columns, values = self.shape.columns, row.values
        _check_media(values, columns)
        told = system or _text_or_none(values, columns.system)
        messages = tuple(Message(role, self.fill(content), loss) for role, content, loss in turns)
        _check_order(messages)
        thinking = _thinking(values, columns) or self.shape.thinking
        return Conversation(messages, self.fill(told) if told else None, _tools(values, columns), row.where, thinking)

    def text(self, row: Row) -> str:
        """All that the row says, as one text to train on.  Raises Unusable."""
        columns, values = self.shape.columns, row.values
        _check_media(values, columns)
        text = "\n".join(_texts(values, columns, self.shape))
        if not text.strip():
            raise Unusable("empty text")
        return self.fill(text)

    def fill(self, text: str) -> str:
        """The text with the values of `placeholders` in it; other braces stay.  Raises Unusable for broken text."""
        _check_whole(text)
        if "{{" in text:
            for key, value in self.placeholders.items():
                text = text.replace(f"{{{{{key}}}}}", str(value))
            self.unfilled.update(_PLACEHOLDER.findall(text))
        return text


def alpaca(values: Values, columns: Columns, tags: Tags) -> tuple[list[_Turn], str]:
    """An alpaca row: instruction, input, output, history.  Its turns and system prompt; raises Unusable."""
    turns: list[_Turn] = []
    for pair in _listed(values.get(columns.history) if columns.history else None, columns.history):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise Unusable(f"'{columns.history}' is not a list of pairs")
        turns += [
            ("user", _plain(pair[0], columns.history), None),
            ("assistant", _plain(pair[1], columns.history), None),
        ]
    question = [_text_or_none(values, column) for column in (columns.prompt, columns.query)]
    asked = "\n".join(part for part in question if part)
    if not asked and columns.prompt and columns.prompt not in values:
        raise Unusable(f"no column '{columns.prompt}'")
    turns.append(("user", asked, None))
    if columns.response:
        turns.append(("assistant", _plain(_require(values, columns.response), columns.response), None))
    return turns, ""


def sharegpt(values: Values, columns: Columns, tags: Tags) -> tuple[list[_Turn], str]:
    """A sharegpt row: a list of messages with `from` and `value`.  Its turns and system prompt; raises Unusable."""
    roles: dict[Any, Role] = {
        tags.user_tag: "user",
        tags.assistant_tag: "assistant",
        tags.observation_tag: "observation",
        tags.function_tag: "function",
        tags.system_tag: "system",
    }
    turns: list[_Turn] = []
    for message in _messages(values, columns):
        if tags.role_tag not in message or tags.content_tag not in message:
            raise Unusable(f"a message without '{tags.role_tag}' or '{tags.content_tag}'")
        role = _role(message, tags, roles)
        turns.append((role, _plain(message[tags.content_tag], tags.content_tag), _loss(message)))
    return _without_system(turns)


def openai(values: Values, columns: Columns, tags: Tags) -> tuple[list[_Turn], str]:
    """OpenAI's messages: `role` and `content`.  Its turns and system prompt; raises Unusable."""
    roles: dict[Any, Role] = {
        tags.user_tag: "user",
        tags.assistant_tag: "assistant",
        tags.observation_tag: "observation",
        tags.function_tag: "function",
        tags.system_tag: "system",
        "developer": "system",
        "tool": "observation",
        "function": "observation",
    }
    turns: list[_Turn] = []
    for message in _messages(values, columns):
        role = _role(message, tags, roles)
        content = _parts(message.get(tags.content_tag), tags.content_tag)
        if role == "assistant":
            thought = message.get("reasoning_content") or message.get("reasoning")
            content = f"<think>\n{thought}\n</think>\n\n{content or ''}" if thought else content
            calls = _calls(message)
            if calls:
                role, content = (
                    "function",
                    f"{content}\n{calls}" if content and not thought else f"{content or ''}{calls}",
                )
        if content is None:
            raise Unusable(f"null in '{tags.content_tag}'")
        turns.append((role, content, _loss(message)))
    return _without_system(turns)


def text(values: Values, columns: Columns, tags: Tags) -> tuple[list[_Turn], str]:
    """Plain text is no conversation.  Its turns and system prompt; raises Unusable."""
    raise Unusable("plain text, which only the stage pt trains on")


def _role(message: Values, tags: Tags, roles: Mapping[str, Role]) -> Role:
    written = message.get(tags.role_tag)
    if not isinstance(written, str) or written not in roles:
        raise Unusable(f"unknown role {str(written)[:40]!r}; known are {', '.join(roles)}")
    return roles[written]


@functools.cache
def _format(name: str) -> Format:
    return catalog.find("format", name)


def _turns(shape: Shape, values: Values) -> tuple[list[_Turn], str]:
    return _format(shape.formatting)(values, shape.columns, shape.tags)


def _asked(shape: Shape, values: Values) -> tuple[list[_Turn], str] | None:
    """What a preference pair's answers answer; None when they bring it themselves."""
    columns = replace(shape.columns, response=None)
    if (columns.prompt if shape.formatting == "alpaca" else columns.messages) not in values:
        return None
    return _format(shape.formatting)(values, columns, shape.tags)


def _answers(shape: Shape, values: Values, column: str | None) -> tuple[list[_Turn], str]:
    """One side of a preference pair: turns that end with its answer.  It is a text, a message, or a list of messages."""
    value = _require(values, column)
    if isinstance(value, str):
        return [("assistant", value, None)], ""
    messages = [value] if isinstance(value, dict) else _listed(value, column)
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise Unusable(f"'{column}' is neither a text nor messages")
    formatting, tags = shape.formatting, shape.tags
    if formatting == "alpaca":
        formatting, tags = ("openai", OPENAI_TAGS) if "role" in messages[0] else ("sharegpt", tags)
    turns, system = _format(formatting)({"messages": messages}, replace(shape.columns, messages="messages"), tags)
    return (turns or [("assistant", "", None)]), system


def _untrained(turns: Sequence[_Turn]) -> list[_Turn]:
    return [(role, content, False) for role, content, _ in turns]


def _calls(message: Values) -> str:
    """The tool calls of an assistant's message as JSON: one object, or a list of several; '' without calls."""
    written = message.get("tool_calls") or (
        [{"function": message["function_call"]}] if message.get("function_call") else []
    )
    calls = []
    if not isinstance(written, list):
        raise Unusable("tool calls that are no list")
    for each in written:
        call = each.get("function", each) if isinstance(each, dict) else None
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise Unusable("a tool call without a name")
        arguments = call.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = parsed(arguments or "{}")
            except ValueError as reason:
                raise Unusable("a tool call whose arguments are not JSON") from reason
        calls.append({"name": call["name"], "arguments": arguments})
    if not calls:
        return ""
    return json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)


def _without_system(turns: list[_Turn]) -> tuple[list[_Turn], str]:
    """The turns after the leading system messages, and what those say."""
    start = next((index for index, turn in enumerate(turns) if turn[0] != "system"), len(turns))
    if any(turn[0] == "system" for turn in turns[start:]):
        raise Unusable("a system message after the first turn")
    return turns[start:], "\n".join(turn[1] for turn in turns[:start])


def _check_order(messages: Sequence[Message]) -> None:
    """Raise Unusable unless questions and answers take turns, the last is an answer, and none is empty.  Results of
    parallel calls may follow one another."""
    if not messages:
        raise Unusable("no messages")
    asked = False
    for message in messages:
        asking = message.role in _ASKING
        if asking and asked and message.role != "observation":
            raise Unusable("two questions without an answer between them")
        if not asking and not asked:
            raise Unusable("an answer without a question before it")
        if not message.content.strip() and message.role != "observation":
            raise Unusable("empty answer" if message.role in _ANSWERING else "empty question")
        asked = asking
    if asked:
        raise Unusable("no answer at the end")


def _messages(values: Values, columns: Columns) -> list[Values]:
    messages = _listed(_require(values, columns.messages), columns.messages)
    if not all(isinstance(message, dict) for message in messages):
        raise Unusable(f"'{columns.messages}' is not a list of messages")
    return messages


def _require(values: Values, column: str | None) -> Any:
    """The column's value.  Raises Unusable when there is none."""
    if column is None:
        raise Unusable("a column that the dataset does not name")
    if column not in values:
        raise Unusable(f"no column '{column}'")
    if values[column] is None:
        raise Unusable(f"null in '{column}'")
    return values[column]


def _plain(value: Any, column: str | None) -> str:
    """A text, or a number written out.  Raises Unusable for null and everything else."""
    if isinstance(value, str):
        return value
    if value is None:
        raise Unusable(f"null in '{column}'")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(f"'{column}' is not a text")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unusable(f"'{column}' is {value}, a missing value or a number without end")
    return str(value)


def _text_or_none(values: Values, column: str | None) -> str | None:
    value = values.get(column) if column else None
    return None if value is None else _plain(value, column)


def _parts(content: Any, name: str) -> str | None:
    """The text of a message's content, which may be a list of typed parts."""
    if not isinstance(content, list):
        return None if content is None else _plain(content, name)
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in ("text", "input_text", "output_text"):
            raise Unusable("a message with parts that are not text")
    return "".join(_plain(part.get("text"), name) for part in content)


def _listed(value: Any, column: str | None) -> list[Any]:
    """A list, or the list that a text holds as JSON (csv cells); null is an empty one."""
    if isinstance(value, str) and value.strip():
        try:
            value = parsed(value)
        except ValueError as reason:
            raise Unusable(f"'{column}' is not JSON") from reason
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise Unusable(f"'{column}' is not a list")
    return value


def _tools(values: Values, columns: Columns) -> str:
    tools = values.get(columns.tools) if columns.tools else None
    try:
        text = tools or "" if tools is None or isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
    except (TypeError, RecursionError) as reason:  # a parquet file's dates and bytes are no JSON
        raise Unusable(f"'{columns.tools}' is nothing that JSON can write") from reason
    _check_whole(text)
    return text


def _thinking(values: Values, columns: Columns) -> Thinking | None:
    """What happens to the row's thoughts: what the column for it says, or a key `thinking` that holds one of the words.
    Elsewhere a key of that name holds a thought."""
    word = values.get(columns.thinking or "thinking")
    if word in get_args(Thinking):
        return word
    if columns.thinking and word is not None:
        raise Unusable(f"'{columns.thinking}' is none of {', '.join(get_args(Thinking))}")
    return None


def _check_media(values: Values, columns: Columns) -> None:
    """Raise Unusable for a row of which only the words would be trained."""
    for column in (columns.images, columns.videos, columns.audios):
        if column and values.get(column) not in (None, "", "[]", []):
            raise Unusable(
                f"'{column}' holds images, video or audio, which are not built yet (an entry in dataset_info.json whose "
                "columns leave it out trains the text alone)"
            )


def _check_whole(text: str) -> None:
    """Raise Unusable for text that UTF-8 cannot write, as JSON's escapes allow."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as reason:
            raise Unusable("half a character (a lone surrogate)") from reason


def _loss(message: Values) -> bool | float | None:
    """What a message says about being trained: `loss`, or `weight` as OpenAI's files spell it."""
    loss = message.get("loss", message.get("weight"))
    if loss is None or isinstance(loss, bool):
        return loss
    if not isinstance(loss, int | float) or not 0 <= loss <= _MOST_LOSS:
        raise Unusable("a loss that is neither true nor false nor a number from 0 on")
    return bool(loss) if loss in (0, 1) else float(loss)


def _texts(values: Values, columns: Columns, shape: Shape) -> Iterable[str]:
    """What a row says, in its order: a text's column; an alpaca row's question and answer; each message's content."""
    if shape.formatting in ("sharegpt", "openai"):
        turns, system = _turns(shape, values)
        return [text for text in (system, *(turn[1] for turn in turns)) if text]
    _require(values, columns.prompt)
    named = (columns.prompt, columns.query, columns.response)
    return [text for column in named if (text := _text_or_none(values, column))]
