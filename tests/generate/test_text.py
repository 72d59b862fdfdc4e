"""An answer's text comes in pieces that are never broken and never taken back."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tunesmith.generate.text import AnswerText


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def pieces(text: AnswerText, tokens: list[int]) -> list[str]:
    return [*map(text.add, tokens), text.end()]


@settings(max_examples=100, deadline=None)
@given(words=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=60))
def test_pieces_are_whole_characters_and_join_to_the_text(tokenizer, words):
    words = unicodedata.normalize("NFC", words)  # as the tokenizer does
    made = pieces(AnswerText(tokenizer.decode), tokenizer(words, add_special_tokens=False)["input_ids"])
    assert "".join(made) == words
    assert not any("\ufffd" in piece for piece in made)


@settings(max_examples=100, deadline=None)
@given(tokens=st.lists(st.integers(0, 599), max_size=40), skip=st.booleans())
def test_any_tokens_join_to_what_the_tokenizer_decodes(tokenizer, tokens, skip):
    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=skip)

    assert "".join(pieces(AnswerText(decode), tokens)) == decode(tokens)


def test_a_character_of_several_tokens_waits_for_its_last(tokenizer):
    tokens = tokenizer("🙂")["input_ids"]
    assert len(tokens) == 4
    assert pieces(AnswerText(tokenizer.decode), tokens) == ["", "", "", "🙂", ""]


def test_a_character_cut_off_at_the_end_is_marked(tokenizer):
    tokens = tokenizer("🙂")["input_ids"]
    assert "".join(pieces(AnswerText(tokenizer.decode), tokens[:-1])) == "\ufffd"


def test_text_ends_at_a_stop_token(tokenizer):
    tokens = tokenizer("one<|im_end|>two")["input_ids"]
    text = AnswerText(tokenizer.decode, stop_tokens=[tokenizer.eos_token_id])
    assert "".join(pieces(text, tokens)) == "one" and text.ended
    shown = AnswerText(tokenizer.decode, stop_tokens=[tokenizer.eos_token_id], show_stop=True)
    assert "".join(pieces(shown, tokens)) == "one<|im_end|>"


@settings(max_examples=200, deadline=None)
@given(words=st.text("abc\n", max_size=30), stops=st.lists(st.text("abc\n", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_text_and_none_of_it_is_shown(words, stops):
    """Tokens are characters here, so a stop text always arrives in parts."""
    text = AnswerText(lambda ids: "".join(map(chr, ids)), stop_texts=stops)
    made = ""
    for letter in words:
        made += text.add(ord(letter))
        assert not text.ended or any(stop in words for stop in stops)
    made += text.end()
    ends = [end for end in range(len(words) + 1) if any(words[:end].endswith(stop) for stop in stops)]
    seen = words[: ends[0]] if ends else words
    cut = min((place for stop in stops if (place := seen.find(stop)) >= 0), default=len(seen))
    assert made == seen[:cut]
