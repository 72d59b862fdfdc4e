"""Whether a tokenizer spells the text before and after a line's end as if each stood alone, and where a text can be cut so.
Knows the rules of the `tokenizers` library; knows no template and no id."""

import json
import re
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = frozenset({_WORDS + r"\p{N}" + _REST, _WORDS + r"\p{N}{1,3}" + _REST})
"""Expressions that split text into words, as Llama 3, Qwen and their kin have them.  In each, and in GPT-2's own, no word
goes on behind a line's end that is followed by something else than white space, and what a word is depends on nothing
before it.  Where no white space stands before that line's end either, the words before it are the same without what
follows."""

INSIDE = re.compile(r"(?<=\S)\n(?=\S)")
"""A line's end at which such a text can be cut."""


@dataclass(frozen=True, slots=True)
class Lines:
    """The places behind line ends at which a text can be cut: the first and last inside it, 0 for none, and whether it can
    be cut off where it ends, before something else than white space."""

    first: int
    last: int
    closed: bool


def lines_of(text: str) -> Lines:
    """Where a text can be cut."""
    places = [match.end() for match in INSIDE.finditer(text)]
    return Lines(places[0] if places else 0, places[-1] if places else 0, re.search(r"\S\n\Z", text) is not None)


def parts_at_line_ends(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer is one whose texts can be cut as Lines tells; False for all whose rules are not known here."""
    rules = json.loads(tokenizer.to_str())
    added = rules["added_tokens"]
    return (
        rules["model"].get("type") == "BPE"
        and not rules["model"].get("dropout")
        and (rules["normalizer"] or {"type": "NFC"})["type"] == "NFC"  # composes nothing with a line's end
        and _splits_at_line_ends(rules["pre_tokenizer"])
        and not any(
            "\n" in each["content"] or each["lstrip"] or each["rstrip"] or each["single_word"] for each in added
        )
    )


def _splits_at_line_ends(rules: dict[str, Any] | None) -> bool:
    match rules:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return True
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern in SPLITS
    return False
