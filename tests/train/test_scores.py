"""Scores of answers, against values counted by hand."""

import math

import pytest

from tunesmith.log import MissingExtra
from tunesmith.train.judging import scores
from tunesmith.train.judging.scores import bleu, exact_match, f1, mean_scores, rouge, words


@pytest.fixture(autouse=True)
def by_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_chinese_words", lambda: list)


def test_words_are_parted_by_spaces_and_marks_and_chinese_by_characters() -> None:
    assert words("The cat's  on it, 3.5%!") == ["the", "cat", "'", "s", "on", "it", ",", "3", ".", "5", "%", "!"]
    assert words("我是Ada，你好") == ["我", "是", "ada", "，", "你", "好"]
    assert words("") == []


def test_chinese_words_come_from_jieba_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_chinese_words", lambda: lambda text: [text[:2], text[2:]])
    assert words("我们散步") == ["我们", "散步"]


def test_exact_match_overlooks_white_space_around() -> None:
    assert exact_match(" yes\n", "yes") == 1 and exact_match("Yes", "yes") == 0


def test_f1_counts_each_word_as_often_as_it_is_there() -> None:
    assert f1("the cat the", "The cat sat") == pytest.approx(2 * 2 / 6)
    assert f1("", "") == 1 and f1("a", "") == 0


def test_bleu_is_the_mean_of_precisions_times_brevity() -> None:
    assert bleu("one two three four five", "one two three four five") == pytest.approx(1)
    precisions = [5 / 5, 4 / 4, 3 / 3, 2 / 2]
    expected = math.prod(precisions) ** 0.25 * math.exp(1 - 6 / 5)
    assert bleu("one two three four five", "one two three four five six") == pytest.approx(expected)
    assert bleu("我们去公园散步", "我们去公园散步") == pytest.approx(1)
    assert bleu("", "one") == bleu("x", "one") == 0


def test_rouge_is_the_f_of_words_pairs_and_the_longest_common_row() -> None:
    found = rouge("the cat sat", "the cat on the mat sat")
    precision, recall = 3 / 3, 3 / 6
    assert found["rouge-1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["rouge-2"] == pytest.approx(2 * (1 / 2) * (1 / 5) / (1 / 2 + 1 / 5))
    assert found["rouge-l"] == found["rouge-1"]
    assert rouge("今天天气", "今天天气很好")["rouge-1"] == pytest.approx(2 * 1 * (4 / 6) / (1 + 4 / 6))


def test_means_are_over_rows() -> None:
    pairs = [("yes", "yes"), ("no", "yes")]
    assert mean_scores(pairs, ["exact_match", "f1", "bleu", "rouge"]).keys() == {
        "exact_match", "f1", "bleu-4", "rouge-1", "rouge-2", "rouge-l",
    }  # fmt: skip
    assert mean_scores(pairs, ["exact_match"]) == {"exact_match": 0.5}


def test_without_the_packages_the_command_that_brings_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "PACKAGES", ("sacrebleu", "no_such_package"))
    with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[metrics\]'"):
        mean_scores([("a", "a")], ["rouge"])
    assert mean_scores([("a", "a")], ["f1"]) == {"f1": 1}


def test_f1_over_labels_is_worked_out_by_hand() -> None:
    labels = ("yes", "no", "maybe")
    pairs = [("Yes.", "yes"), ("no", "yes"), (" NO ", "no"), ("I can't tell", "no"), ("yes", "yes")]
    # yes: 2 hits of 2 said and 3 wanted; no: 1 of 2 and 2; maybe was neither said nor wanted
    by_hand = (2 * 2 / (2 + 3) + 2 * 1 / (2 + 2)) / 2
    assert scores.macro_f1(pairs, labels) == pytest.approx(by_hand)
    assert scores.mean_scores(pairs, ["f1"], labels) == {"f1": pytest.approx(by_hand)}
    assert scores.mean_scores(pairs, ["f1"])["f1"] != pytest.approx(by_hand)
    assert scores.macro_f1([("what", "ever")], labels) == 0
    assert scores.label_of("“肯定”。", ["肯定", "否定"]) == "肯定"
