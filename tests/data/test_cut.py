"""What goes from a row that is too long: old turns, then the prompt's middle, then the answers' ends; never an end token."""

from typing import Any

import numpy as np
import pytest
from chat_formats import ChatML, conversation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.encode import Encoder, Outcome
from tunesmith.log import DataError
from tunesmith.templates.conversation import Conversation

talks = st.lists(st.text("ab é你🎉<|", min_size=1, max_size=30), min_size=2, max_size=8).map(
    lambda t: t[: len(t) // 2 * 2]
)


def encode(tokenizer: PreTrainedTokenizerBase, talk: Conversation, cutoff_len: int, **options: Any) -> Outcome:
    return Encoder(tokenizer, ChatML(), DataConfig(cutoff_len=cutoff_len, **options)).encode([[talk]])


def texts(tokenizer: PreTrainedTokenizerBase, outcome: Outcome) -> tuple[str, str]:
    """The whole text that is left, and the trained part of it."""
    (((ids, trained),),) = outcome.samples
    return tokenizer.decode(ids), tokenizer.decode(ids[trained])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talks, st.none() | st.text("abc ", max_size=30), st.integers(1, 120))
def test_what_is_left_fits_asks_for_its_answers_and_ends_them(
    tiny_tokenizer: PreTrainedTokenizerBase, turns: list[str], system: str | None, cutoff_len: int
) -> None:
    talk = conversation(*turns, system=system)
    outcome = encode(tiny_tokenizer, talk, cutoff_len)
    if outcome.dropped:
        assert outcome.dropped == [(0, "no answer left within cutoff_len")] and not outcome.samples
        return
    (((ids, trained),),) = outcome.samples
    assert len(ids) <= cutoff_len
    end, start = (tiny_tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|im_start|>"))
    ends, starts = ids == end, ids == start
    assert ends.sum() == starts.sum() and starts[0] and ends[-2]
    turns_left = int(ends.sum()) - bool(system)
    assert turns_left % 2 == 0 and trained[ends].sum() == turns_left // 2
    whole, learned = texts(tiny_tokenizer, outcome)
    assert "\ufffd" not in whole, "no character is cut in two"
    assert learned.count("<|im_end|>") == turns_left // 2
    answers = [answer for answer in learned.split("<|im_end|>\n")[:-1]]
    originals = turns[1::2][-len(answers) :]
    assert all(original.startswith(left) for original, left in zip(originals, answers, strict=True))
    if any(original != left for original, left in zip(originals, answers, strict=True)):
        assert "<|im_start|>user\n<|im_end|>" in whole, "an answer is cut only when nothing of the prompt is left"


def test_rows_that_fit_are_left_alone(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("a b", "c d")
    (((ids, _),),) = encode(tiny_tokenizer, talk, 2048).samples
    at_the_limit = encode(tiny_tokenizer, talk, len(ids))
    assert at_the_limit.samples[0][0][0].tolist() == ids.tolist() and not at_the_limit.cut


def test_oldest_turns_go_first_and_the_system_prompt_stays(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("q1" * 9, "a1" * 9, "q2" * 9, "a2" * 9, "q3", "a3", system="Be brief.")
    whole = len(encode(tiny_tokenizer, talk, 2048).samples[0][0][0])
    left = [texts(tiny_tokenizer, encode(tiny_tokenizer, talk, whole - less))[0] for less in (1, 60)]
    assert left[0] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n" + "q2" * 9 + "<|im_end|>\n<|im_start|>assistant\n"
        + "a2" * 9 + "<|im_end|>\n<|im_start|>user\nq3<|im_end|>\n<|im_start|>assistant\na3<|im_end|>\n"
    )  # fmt: skip
    assert left[1].endswith(
        "Be brief.<|im_end|>\n<|im_start|>user\nq3<|im_end|>\n<|im_start|>assistant\na3<|im_end|>\n"
    )
    outcome = encode(tiny_tokenizer, talk, whole - 1)
    assert outcome.cut == [(0, whole)]


def test_then_the_prompts_middle_goes_and_the_answer_stays(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    asked = "first 1 2 3 4 5 6 7 8 9 last"
    whole = len(encode(tiny_tokenizer, conversation(asked, "answer"), 2048).samples[0][0][0])
    text, learned = texts(tiny_tokenizer, encode(tiny_tokenizer, conversation(asked, "answer"), whole - 4))
    assert learned == "answer<|im_end|>\n"
    assert text.startswith("<|im_start|>user\nfirst 1") and "9 last<|im_end|>\n<|im_start|>assistant\n" in text
    assert asked not in text


def test_only_then_the_answers_end_goes(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("asked", "1 2 3 4 5 6 7 8 9")
    frame = len(encode(tiny_tokenizer, conversation("", "x"), 2048).samples[0][0][0]) - 1
    text, learned = texts(tiny_tokenizer, encode(tiny_tokenizer, talk, frame + 5))
    assert text.startswith("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n1 2 3")
    assert learned.endswith("<|im_end|>\n") and "9" not in learned
    assert encode(tiny_tokenizer, talk, frame).dropped == [(0, "no answer left within cutoff_len")]


def test_cut_rows_keep_words_that_only_look_like_control_tokens(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("<|im_end|> " * 20, "ok <|im_end|>")
    whole = len(encode(tiny_tokenizer, talk, 2048).samples[0][0][0])
    (((ids, _),),) = encode(tiny_tokenizer, talk, whole - 30).samples
    assert (ids == tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")).sum() == 2
    assert len(ids) <= whole - 30


def test_long_rows_may_be_dropped_or_refused_instead(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("asked " * 20, "answered", where="rows.json row 7")
    outcome = encode(tiny_tokenizer, talk, 20, overflow="drop")
    assert outcome.dropped == [(0, "longer than cutoff_len")] and not outcome.samples
    with pytest.raises(DataError, match=r"rows.json row 7: has \d+ tokens, over cutoff_len 20 \(overflow: error\)"):
        encode(tiny_tokenizer, talk, 20, overflow="error")


def test_a_row_without_training_after_the_cut_is_dropped(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("q1", "a1", "q2", "a2" * 40)
    untrained = Conversation([*talk.messages[:3], type(talk.messages[3])("assistant", "a2" * 40, loss=False)])
    assert encode(tiny_tokenizer, untrained, 40).dropped == [(0, "no answer left within cutoff_len")]


def test_labels_travel_with_their_tokens(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    (((ids, trained),),) = encode(tiny_tokenizer, conversation("x " * 50, "an answer"), 40).samples
    assert ids.dtype == np.int32 and trained.dtype == bool and len(ids) == len(trained)
    assert tiny_tokenizer.decode(ids[trained]) == "an answer<|im_end|>\n"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talks, st.integers(20, 80))
def test_a_split_conversation_trains_every_answer_once_in_its_order(
    tiny_tokenizer: PreTrainedTokenizerBase, turns: list[str], cutoff_len: int
) -> None:
    outcome = encode(tiny_tokenizer, conversation(*turns, system="s"), cutoff_len, overflow="split")
    if outcome.dropped:
        return
    (samples,) = outcome.samples
    assert all(len(ids) <= cutoff_len for ids, _ in samples)
    if not outcome.cut:
        assert all(tiny_tokenizer.decode(ids).startswith("<|im_start|>system\ns<|im_end|>") for ids, _ in samples)
        learned = "".join(tiny_tokenizer.decode(ids[trained]) for ids, trained in samples)
        assert learned == "".join(f"{answer}<|im_end|>\n" for answer in turns[1::2])
    assert outcome.split == ([(0, len(samples))] if len(samples) > 1 else [])


def test_a_single_turn_that_is_too_long_is_shortened_where_others_are_split(
    tiny_tokenizer: PreTrainedTokenizerBase,
) -> None:
    talk = conversation("q1", "a1", "x " * 60, "a2", "q3", "a3")
    outcome = encode(tiny_tokenizer, talk, 40, overflow="split")
    learned = [tiny_tokenizer.decode(ids[trained]) for ids, trained in outcome.samples[0]]
    assert learned == ["a1<|im_end|>\n", "a2<|im_end|>\n", "a3<|im_end|>\n"]
    assert outcome.split == [(0, 3)] and len(outcome.cut) == 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talks, st.text("ab ", min_size=1, max_size=40), st.integers(15, 80))
def test_both_answers_of_a_pair_keep_the_same_prompt(
    tiny_tokenizer: PreTrainedTokenizerBase, turns: list[str], other: str, cutoff_len: int
) -> None:
    chosen, rejected = conversation(*turns), conversation(*turns[:-1], other)
    asked = Encoder(tiny_tokenizer, ChatML(), DataConfig(cutoff_len=cutoff_len, mask_history=True))
    outcome = asked.encode([[chosen, rejected]])
    if outcome.dropped:
        return
    ((first, second),) = outcome.samples
    assert all(len(ids) <= cutoff_len for ids, _ in (first, second))
    prompts = [ids[: int(np.flatnonzero(trained)[0])].tolist() for ids, trained in (first, second)]
    assert prompts[0] == prompts[1]
