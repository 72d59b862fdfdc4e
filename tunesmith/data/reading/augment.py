"""Variations of prompts that leave what is to be answered as it is: other words for the same, white space, case, options in
another order, no system prompt.  Knows conversations and a seed; knows no token.

Which variations a row gets depends on the seed and the row alone.  Answers are never touched.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from tunesmith.config.augment import Augment
from tunesmith.config.data import DataConfig
from tunesmith.log import OptionError
from tunesmith.templates.conversation import Conversation

MOST_SPACES = 3
"""Spaces of a prompt that are doubled."""

_OPTION = re.compile(r"^(\s*\(?)([A-Z])([).:、．]\s*)(\S.*?)\s*$")
_REFERS = re.compile(
    r"\b(?:above|below|both|neither|none of|all of|[A-Z] and [A-Z]|[A-Z] or [A-Z])\b|以上|以下|上述|都", re.I
)
_LETTER = re.compile(r"(?<![A-Za-z])[B-Z](?![A-Za-z])|[（(][A-Z][)）]")
_CODE = re.compile(r"```|^(?: {2,}|\t)", re.MULTILINE)


@dataclass(frozen=True)
class Augmenter:
    """Makes variations.  Travels to worker processes."""

    how: Augment
    phrases: tuple[tuple[str, ...], ...]
    seed: int

    @classmethod
    def of(cls, cfg: DataConfig, seed: int) -> "Augmenter | None":
        """As the options ask; None when they ask for none.  Raises OptionError for a file of phrases that can't be read."""
        if not cfg.data_augmentation:
            return None
        how = Augment(**cfg.augment)
        lists = _read(Path(how.paraphrase).expanduser()) if isinstance(how.paraphrase, str) else how.paraphrase
        return cls(how, tuple(tuple(each) for each in lists), seed)

    def fingerprint(self) -> str:
        """Hash of all that shapes variations."""
        return f"sha256:{sha256(repr((self.how, self.phrases, self.seed)).encode()).hexdigest()}"

    def variations(self, conversation: Conversation, row: str) -> Iterator[tuple[Conversation, tuple[str, ...]]]:
        """Conversations with the same answers, all different, each with what was changed; `row` names where it is from."""
        random = Random(f"{self.seed} {row}")
        seen = {_prompt(conversation)}
        for _ in range(self.how.copies):
            made, changes = self._varied(conversation, random)
            if _prompt(made) not in seen:
                seen.add(_prompt(made))
                yield made, changes

    def _varied(self, conversation: Conversation, random: Random) -> tuple[Conversation, tuple[str, ...]]:
        changes = Counter[str]()
        messages = list(conversation.messages)
        last = max((place for place, each in enumerate(messages) if each.role == "user"), default=-1)
        for place, message in enumerate(messages):
            if message.role != "user":
                continue
            text = message.content
            ways = [
                ("paraphrase", 1.0, self._paraphrased),
                ("case", self.how.case, cased),
                ("spaces", self.how.spaces, spaced),
            ]
            for name, chance, way in ways:
                drawn = random.random()
                varied = way(text, random) if drawn < chance else text
                changes[name] += varied != text
                text = varied
            if place == last == len(messages) - 2 and random.random() < self.how.options:
                varied = with_shuffled_options(text, messages[-1].content, random)
                changes["options"] += varied != text
                text = varied
            messages[place] = replace(message, content=text)
        system = conversation.system
        if system and random.random() < self.how.drop_system:
            system, changes["drop_system"] = None, 1
        named = tuple(name for name, count in changes.items() if count)
        return replace(conversation, messages=tuple(messages), system=system), named

    def _paraphrased(self, text: str, random: Random) -> str:
        """One phrase of each list in the place of another."""
        for phrases, pattern in self._patterns:
            found = pattern.search(text)
            if found:
                others = [one for one in phrases if one.lower() != found[0].lower()]
                chosen = random.choice(others) if others else found[0]
                if found[0][:1].isupper():
                    chosen = chosen[:1].upper() + chosen[1:]
                text = text[: found.start()] + chosen + text[found.end() :]
        return text

    @cached_property
    def _patterns(self) -> list[tuple[tuple[str, ...], re.Pattern[str]]]:
        """Each list of phrases, and what finds one of them as whole words."""
        return [
            (phrases, re.compile("|".join(map(_whole, sorted(phrases, key=len, reverse=True))), re.IGNORECASE))
            for phrases in self.phrases
        ]


def cased(text: str, random: Random) -> str:
    """The first word with the other kind of first letter, where the rest of it is small; `I` and code stay."""
    word = re.match(r"[A-Za-z]+", text)
    if not word or not word[0][1:].islower() or _CODE.search(text):
        return text
    return text[0].swapcase() + text[1:]


def spaced(text: str, random: Random) -> str:
    """Some spaces between words doubled, or one at the end; code stays."""
    if not text.strip() or _CODE.search(text):
        return text
    gaps = [found.start() for found in re.finditer(r"(?<=\S) (?=\S)", text)]
    for gap in sorted(random.sample(gaps, min(len(gaps), random.randint(0, MOST_SPACES))), reverse=True):
        text = f"{text[:gap]}  {text[gap + 1 :]}"
    return text if gaps and random.random() < 0.5 else f"{text} "


def with_shuffled_options(text: str, answer: str, random: Random) -> str:
    """The lettered options of a multiple choice in another order behind the same letters.  Only where the answer is the text of
    one of them, and nothing in the question or an option speaks of a letter or a place."""
    lines = text.split("\n")
    found = {place: match for place, line in enumerate(lines) if (match := _OPTION.match(line))}
    texts = [match[4] for match in found.values()]
    letters = "".join(match[2] for match in found.values())
    others = "\n".join(line for place, line in enumerate(lines) if place not in found)
    is_safe = (
        len(texts) > 1
        and letters == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]
        and answer.strip() in texts
        and len(set(texts)) == len(texts)
        and not any(_REFERS.search(one) or _LETTER.search(one) for one in texts)
        and not _LETTER.search(others)
    )
    if not is_safe:
        return text
    order = random.sample(texts, len(texts))
    for (place, match), chosen in zip(found.items(), order, strict=True):
        lines[place] = f"{match[1]}{match[2]}{match[3]}{chosen}"
    return "\n".join(lines)


def _whole(phrase: str) -> str:
    """A pattern of a phrase that is no part of a longer word."""
    before = r"(?<![A-Za-z0-9_])" if phrase[:1].isascii() else ""
    after = r"(?![A-Za-z0-9_])" if phrase[-1:].isascii() else ""
    return before + re.escape(phrase) + after


def _prompt(conversation: Conversation) -> tuple[Any, ...]:
    return (conversation.system, *(message.content for message in conversation.messages))


def _read(path: Path) -> Sequence[Sequence[str]]:
    """Lists of phrases from a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionError(f"augment: paraphrase: {path} can't be read: {problem}") from problem
    if path.suffix.lower() == ".json":
        try:
            lists = json.loads(text)
        except ValueError as problem:
            raise OptionError(f"augment: paraphrase: {path} is no JSON: {problem}") from problem
    else:
        lists = [[one.strip() for one in line.split("\t") if one.strip()] for line in text.splitlines() if line.strip()]
    is_right = isinstance(lists, list) and all(
        isinstance(each, list) and len(each) > 1 and all(isinstance(one, str) and one for one in each) for each in lists
    )
    if not is_right or not lists:
        raise OptionError(f"augment: paraphrase: {path} must hold lists of at least two phrases")
    return lists
