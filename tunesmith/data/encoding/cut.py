"""What goes when a conversation is longer than `cutoff_len`: the oldest turns, then the prompt's middle, then the answers'
ends; never the template's own words, so that turns still end and answers are still asked for.  Knows no tokenizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunesmith.templates.conversation import Conversation


@dataclass(slots=True)
class Exact:
    """A conversation's tokens with what is known of each, all of shape [tokens]."""

    ids: np.ndarray
    """int32"""
    trained: np.ndarray
    """bool; float32 where some weigh neither 0 nor 1"""
    answer: np.ndarray
    """bool: in an answer's span"""
    origins: np.ndarray
    """int64: which character of the data it spells, counted over the whole row; -1 for the template's own words"""


Tokens = tuple[np.ndarray, np.ndarray]
"""Ids of a sample, int32 [tokens], and which are trained, bool [tokens], or how much each weighs, float32 [tokens]."""


def shorten(
    conversations: Sequence[Conversation], limit: int, spell: Callable[[Conversation], Exact]
) -> list[Tokens] | None:
    """At most `limit` tokens of each conversation; None when no word of an answer would be left.  Several conversations
    share everything but their last answer, and go on sharing it: the same goes from each."""
    starts = _questions(conversations[0])
    exacts: list[Exact] = []
    for start in starts[1:] or [0]:
        exacts = [spell(replace(each, messages=each.messages[start:])) for each in conversations]
        if all(len(exact.ids) <= limit for exact in exacts):
            break
    excess = max(len(exact.ids) for exact in exacts) - limit
    shortened = [_shortened(exact, limit, excess) for exact in exacts]
    return None if None in shortened else [each for each in shortened if each is not None]


def split(conversation: Conversation, limit: int, spell: Callable[[Conversation], Exact]) -> tuple[list[Tokens], int]:
    """Samples of at most `limit` tokens with as many turns in each as fit, and how many single turns had to be shortened
    or left out because they are too long by themselves."""
    starts = [*_questions(conversation), len(conversation.messages)]
    starts[0] = 0
    samples, too_long = [], 0
    first = 0
    while first + 1 < len(starts):
        fitting: Exact | None = None
        last = first + 1
        while last < len(starts):
            exact = spell(replace(conversation, messages=conversation.messages[starts[first] : starts[last]]))
            if len(exact.ids) > limit:
                break
            fitting, last = exact, last + 1
        if fitting is None:
            too_long += 1
            turn = replace(conversation, messages=conversation.messages[starts[first] : starts[last]])
            samples += shorten([turn], limit, spell) or []
            first += 1
        else:
            samples.append((fitting.ids, fitting.trained))
            first = last - 1
    return [(ids, trained) for ids, trained in samples if trained[1:].any()], too_long


def _questions(conversation: Conversation) -> list[int]:
    """Where a user speaks: a conversation can begin there."""
    return [index for index, message in enumerate(conversation.messages) if message.role == "user"] or [0]


def _shortened(exact: Exact, limit: int, excess: int) -> Tokens | None:
    """A sample without `excess` of the prompt's words and then without the answers' ends that are still too many."""
    gone = _prompt_middle(exact, excess)
    gone[_answer_ends(exact, len(exact.ids) - limit - int(gone.sum()))] = True
    stays = ~gone
    if stays.sum() > limit or not (stays & exact.answer & (exact.trained != 0) & (exact.origins >= 0)).any():
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
