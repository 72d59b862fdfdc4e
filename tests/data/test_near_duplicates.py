"""Near duplicates are found, other texts are not, and the estimate is near the truth."""

import random

import pytest

from tunesmith.data.faults.near_duplicates import LIKENESS, RUN_WORDS, Likeness, Texts

WORDS = [f"word{number}" for number in range(3000)]


def text(draw: random.Random, length: int = 120) -> list[str]:
    return draw.choices(WORDS, k=length)


def changed(draw: random.Random, words: list[str], changes: int) -> list[str]:
    words = list(words)
    for place in draw.sample(range(len(words)), changes):
        words[place] = draw.choice(WORDS)
    return words


def found(texts: list[list[str]], at_once: int = 1000) -> list[Likeness]:
    taken = Texts()
    for start in range(0, len(texts), at_once):
        taken.add(" ".join(words) for words in texts[start : start + at_once])
    return list(taken.alike())


def test_copies_and_near_copies_are_found_and_nothing_else() -> None:
    draw = random.Random(1)
    originals = [text(draw) for _ in range(400)]
    copies = [changed(draw, originals[number], changes=2) for number in range(0, 400, 10)]
    others = [changed(draw, originals[number], changes=40) for number in range(1, 400, 10)]
    alike = {(each.earlier, each.later) for each in found([*originals, *copies, *others])}
    assert {pair for pair in alike if pair[1] < 400} == set()
    assert {pair for pair in alike if pair[1] >= 440} == set()
    expected = {(10 * number, 400 + number) for number in range(40)}
    assert alike <= expected and len(alike) >= 37


def resemblance(one: list[str], other: list[str]) -> float:
    """The exact one: shared runs of words, divided by all."""
    first, second = (
        {tuple(each[at : at + RUN_WORDS]) for at in range(len(each) - RUN_WORDS + 1)} for each in (one, other)
    )
    return len(first & second) / len(first | second)


def test_the_estimate_is_near_the_truth() -> None:
    draw = random.Random(2)
    originals = [text(draw, 200) for _ in range(50)]
    copies = [changed(draw, words, changes=3) for words in originals]
    for each in found([*originals, *copies]):
        truth = resemblance(originals[each.earlier], copies[each.later - 50])
        assert each.share == pytest.approx(truth, abs=0.12) and each.share >= LIKENESS


def test_it_does_not_matter_how_many_come_at_once() -> None:
    draw = random.Random(3)
    originals = [text(draw, draw.randint(1, 60)) for _ in range(50)]
    texts = [*originals, *originals[:20]]
    assert found(texts, 7) == found(texts, 70)


def test_short_texts_are_left_alone_and_case_and_signs_do_not_count() -> None:
    draw = random.Random(4)
    long = " ".join(text(draw))
    taken = Texts()
    taken.add(["Yes, it is.", long, "Yes, it is.", long.upper().replace(" ", ", ")])
    assert list(taken.alike()) == [Likeness(1, 3, 1.0)]


def test_texts_without_spaces() -> None:
    one = "从前有一座灯塔，灯塔里住着一位老人，他每天晚上都点亮灯，等待远方的船。学习使人进步，时间就是生命。"
    taken = Texts()
    taken.add(
        [
            one,
            one.replace("远方", "远处"),
            "人工智能正在改变世界，语言模型可以翻译、写作和回答问题。谢谢你的帮助，再见。",
        ]
    )
    assert [(each.earlier, each.later) for each in taken.alike()] == [(0, 1)]


def test_nothing_to_compare() -> None:
    assert list(Texts().alike()) == []
    assert found([["a"], ["a"]]) == []
