"""Cutting a text at a line's end changes no token, for every kind of tokenizer that says so."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from tunesmith.data.encoding.line_ends import SPLITS, lines_of, parts_at_line_ends

ODD = ["\n", "\r", " ", "\t", "\u00a0", "\u0085", "\u2028", "\u180e", "\u200b", "\ufeff", "\x1c", "\u3000", "\u0301", "e", "é",
       "'s", "7", "42", "你", ".", "<|", "|>", "word", "\U0001f389", "   "]  # fmt: skip
texts = st.lists(st.sampled_from(ODD) | st.characters(exclude_categories=("Cs",)), max_size=12).map("".join)


def tokenizer(pattern: str | None, normalize: bool) -> Tokenizer:
    """A byte-level tokenizer that has merges over all that ODD holds; `pattern` None: GPT-2's own."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC() if normalize else None
    if pattern is None:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(_regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
    merged = [before + after for before in ODD for after in ODD] * 2
    made.train_from_iterator(
        merged,
        trainers.BpeTrainer(
            vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"],
            show_progress=False,
        ),
    )  # fmt: skip
    made.add_tokens(["    ", "  "])
    return made


def _regex(pattern: str) -> Any:
    from tokenizers import Regex

    return Regex(pattern)


TOKENIZERS = [tokenizer(pattern, normalize) for pattern in (None, *sorted(SPLITS)) for normalize in (True, False)]


@pytest.mark.parametrize("number", range(len(TOKENIZERS)))
@settings(max_examples=300, deadline=None)
@given(before=texts, after=texts)
def test_text_cut_at_a_line_end_is_spelled_the_same(number: int, before: str, after: str) -> None:
    made = TOKENIZERS[number]
    assert parts_at_line_ends(made)
    text = f"{before}\n{after}"
    lines = lines_of(text)
    cuts = {lines.first, lines.last} - {0}
    if lines_of(f"{before}\n").closed and after and not after[0].isspace():
        cuts.add(len(before) + 1)
    whole = made.encode(text, add_special_tokens=False).ids
    for cut in cuts:
        apart = [made.encode(part, add_special_tokens=False).ids for part in (text[:cut], text[cut:])]
        assert apart[0] + apart[1] == whole


def test_where_lines_end() -> None:
    assert lines_of("no line") == lines_of(" \n x")
    found = lines_of("ab\ncd\nef\n")
    assert (found.first, found.last, found.closed) == (3, 6, True)
    found = lines_of("ab\n\ncd \n")
    assert (found.first, found.last, found.closed) == (0, 0, False)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "Prepend", "prepend": "_"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True}},
        {"added_tokens": [{"id": 0, "content": "a\nb"}]},
        {"added_tokens": [{"id": 0, "content": "<think>", "lstrip": True}]},
        {"model": {"dropout": 0.1}},
    ],
)
def test_other_tokenizers_are_left_alone(change: dict[str, Any]) -> None:
    rules = json.loads(TOKENIZERS[0].to_str())
    token = {"id": 0, "special": False, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
    for key, value in change.items():
        if key == "added_tokens":
            rules[key] = [*rules[key], token | value[0] | {"id": len(rules["model"]["vocab"]) + 2}]
        else:
            rules[key] = rules[key] | value if key == "model" else value
    assert not parts_at_line_ends(Tokenizer.from_str(json.dumps(rules)))


def test_an_unknown_expression_is_left_alone() -> None:
    rules = json.loads(tokenizer(sorted(SPLITS)[0], normalize=False).to_str())
    rules["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\w+\n?|."}
    assert not parts_at_line_ends(Tokenizer.from_str(json.dumps(rules)))
    assert all(re.search(r"\\n", pattern) for pattern in SPLITS)
