"""What goes when a conversation is longer than `cutoff_len`: the oldest turns, then the prompt's middle, then the answers'
ends; never the template's own words, so that turns still end and answers are still asked for.  Knows no tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tunesmith.templates.conversation import Conversation


@dataclass(slots=True)
class Exact:
    """A conversation's tokens with what is known of each, all of shape [tokens]."""

    ids: np.ndarray
    """int32"""
    trained: np.ndarray
    """bool"""
    answer: np.ndarray
    """bool: in an answer's span"""
    origins: np.ndarray
    """int64: which character of the data it spells, counted over the whole row; -1 for the template's own words"""


def shorten(
    conversation: Conversation, limit: int, spell: Callable[[Conversation], Exact]
) -> tuple[np.ndarray, np.ndarray] | None:
    """At most `limit` ids of a conversation and which are trained; None when no word of an answer would be left."""
    starts = [index for index, message in enumerate(conversation.messages) if message.role == "user"]
    exact = None
    for start in starts[1:] or [0]:
        exact = spell(replace(conversation, messages=conversation.messages[start:]))
        if len(exact.ids) <= limit:
            break
    assert exact is not None
    gone = _prompt_middle(exact, len(exact.ids) - limit)
    gone[_answer_ends(exact, len(exact.ids) - limit - int(gone.sum()))] = True
    stays = ~gone
    if stays.sum() > limit or not (stays & exact.answer & exact.trained & (exact.origins >= 0)).any():
        return None
    return exact.ids[stays], exact.trained[stays]


def _prompt_middle(exact: Exact, excess: int) -> np.ndarray:
    """The prompt's words that go, bool [tokens]: as many as are too many, from the middle."""
    gone = np.zeros(len(exact.ids), dtype=bool)
    words = np.flatnonzero((exact.origins >= 0) & ~exact.answer)
    if excess > 0 and len(words):
        first = max(0, (len(words) - excess) // 2)
        gone[words[_whole_characters(exact.origins[words], first, min(first + excess, len(words)))]] = True
    return gone


def _answer_ends(exact: Exact, excess: int) -> np.ndarray:
    """Numbers of the answers' last tokens that go: as many as are too many."""
    words = np.flatnonzero((exact.origins >= 0) & exact.answer)
    if excess <= 0:
        return words[:0]
    return words[_whole_characters(exact.origins[words], max(0, len(words) - excess), len(words))]


def _whole_characters(origins: np.ndarray, first: int, last: int) -> slice:
    """The range widened so that no character loses only some of its bytes."""
    while 0 < first < last and origins[first] == origins[first - 1]:
        first -= 1
    while last < len(origins) and origins[last] == origins[last - 1]:
        last += 1
    return slice(first, last)
