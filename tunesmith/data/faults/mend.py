"""Rows as they should have been: what can safely be put right is put right, and rows beyond that are left out.  Knows a
dataset's shape; knows no template and no token."""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data.faults.broken_text import unscrambled, without_unseen
from tunesmith.data.faults.lint import kind_of, read, within
from tunesmith.data.faults.lint_rows import Words, unusable
from tunesmith.data.reading.files import Row, Values
from tunesmith.data.reading.formats import Reader, Unusable
from tunesmith.data.reading.sources import Dataset, Shape

LEFT_OUT = ("tools", "same_answers")
"""Checks within a row that leave it out when mending did not help."""

_END_TOKENS = re.compile(
    r"(?:\s*(?:</s>|<\|(?:im_end|endoftext|end|eot_id|eom_id|end_of_text|return)\|>|<end_of_turn>|<eos>"
    r"|<｜end▁of▁sentence｜>))+\s*\Z"
)
"""What other programs leave at a text's end."""


@dataclass(slots=True)
class Mended:
    """What was done to rows, counted."""

    written: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    """Rows in which something was put right, by check."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by check."""

    def __str__(self) -> str:
        parts = [f"{count:,} mended ({check})" for check, count in self.changed.items()]
        parts += [f"{count:,} left out ({check})" for check, count in self.left_out.items()]
        return ", ".join([f"{self.written:,} rows", *parts])


def mended(
    dataset: Dataset,
    rows: Iterable[Row],
    done: Mended,
    *,
    stage: str = "sft",
    placeholders: Mapping[str, Any],
    evaluated: Set[bytes] = frozenset(),
) -> Iterator[Values]:
    """The rows of a dataset as they should have been, in its own format.  `evaluated`: prompts of the evaluation data,
    whose rows are left out.  `done` is counted up."""
    mends = _mends(dataset.shape, placeholders)
    reader, kind, seen = Reader(dataset.shape), kind_of(dataset, stage), set[bytes]()
    for row in rows:
        values, changed = row.values, list[str]()
        for check, mend in mends.items():
            better = mend(values)
            changed += [check] if better != values else []
            values = better
        try:
            said = read(reader, row._replace(values=values), kind)
        except Unusable as reason:
            done.left_out[unusable(str(reason))] += 1
            continue
        wrong = next((check for check, _ in within(said, Words()) if check in LEFT_OUT), None)
        if said.prompt in evaluated or said.whole in seen:
            wrong = "overlap" if said.prompt in evaluated else "duplicate"
        if wrong:
            done.left_out[wrong] += 1
            continue
        seen.add(said.whole)
        done.changed.update(changed)
        done.written += 1
        yield values


def _mends(shape: Shape, placeholders: Mapping[str, Any]) -> dict[str, Callable[[Values], Values]]:
    """What is put right, in this order, by the check that finds it."""

    def filled(text: str) -> str:
        for key, value in placeholders.items():
            text = text.replace(f"{{{{{key}}}}}", str(value))
        return text

    return {
        "wrong_encoding": lambda values: _mapped(values, unscrambled),
        "unseen_characters": lambda values: _mapped(values, without_unseen),
        "special_token": lambda values: _mapped(values, lambda text: _END_TOKENS.sub("", text)),
        "placeholder": lambda values: _mapped(values, filled),
        "tools": lambda values: _with_json(values, shape),
        "role_order": lambda values: _with_order(values, shape),
    }


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


def _with_json(values: Values, shape: Shape) -> Values:
    """Tools and calls that are written as Python writes them, as JSON."""
    tools, messages = shape.columns.tools, shape.columns.messages
    if tools and isinstance(values.get(tools), str):
        values = {**values, tools: _as_json(values[tools])}
    if messages and isinstance(values.get(messages), list):
        role, content, calls = shape.tags.role_tag, shape.tags.content_tag, shape.tags.function_tag
        turns = [
            {**turn, content: _as_json(turn[content])}
            if isinstance(turn, dict) and turn.get(role) == calls and isinstance(turn.get(content), str)
            else turn
            for turn in values[messages]
        ]
        values = {**values, messages: turns}
    return values


def _as_json(text: str) -> str:
    """A Python literal of objects and lists as JSON; any other text as it is."""
    try:
        json.loads(text or "{}")
        return text
    except json.JSONDecodeError:
        pass
    try:
        found = ast.literal_eval(text.strip())
        return json.dumps(found, ensure_ascii=False) if isinstance(found, dict | list) else text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _with_order(values: Values, shape: Shape) -> Values:
    """Messages without answers before the first question and without questions behind the last answer."""
    column = shape.columns.messages
    if not column or shape.ranking or not isinstance(values.get(column), list):
        return values
    turns: list[Any] = values[column]
    tags = shape.tags
    asking = (tags.user_tag, tags.observation_tag, "tool")
    system = (tags.system_tag, "developer")
    roles = [turn.get(tags.role_tag) if isinstance(turn, dict) else None for turn in turns]
    first = next((at for at, role in enumerate(roles) if role in asking), len(turns))
    last = max((at for at, role in enumerate(roles) if role not in (*asking, *system)), default=-1)
    if last < first:
        return values
    told = [turn for turn, role in zip(turns[:first], roles, strict=False) if role in system]
    return {**values, column: [*told, *turns[first : last + 1]]}
