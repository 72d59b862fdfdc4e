"""Variations of prompts depend on the seed and the row alone, leave answers alone, and are never evaluated on."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tunesmith.cli import main
from tunesmith.config.data import DataConfig
from tunesmith.config.load import load
from tunesmith.data.reading.augment import Augmenter, cased, spaced, with_shuffled_options
from tunesmith.log import OptionError
from tunesmith.templates.conversation import Conversation, Message
from tunesmith.train.inputs import Inputs, read_inputs

QUESTION = "Which is a fruit?\nA. stone\nB. apple\nC. river\nD. lamp"


def conversation(asked: str, answer: str = "An answer  stays.", system: str | None = None) -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answer)), system)


def variations(asked: str, answer: str = "yes", seed: int = 1, **how: Any) -> list[str]:
    augmenter = Augmenter.of(DataConfig(data_augmentation=True, augment=how), seed)
    assert augmenter is not None
    made = [each for each, _ in augmenter.variations(conversation(asked, answer), "rows.json row 1")]
    assert all(each.messages[-1].content == answer for each in made)
    return [each.messages[0].content for each in made]


def test_the_same_seed_and_row_give_the_same_variations() -> None:
    first = variations("How are you today my friend?", copies=9)
    assert first == variations("How are you today my friend?", copies=9)
    assert first != variations("How are you today my friend?", copies=9, seed=2)
    assert len(set(first)) == len(first) > 1 and "How are you today my friend?" not in first


def test_white_space_and_case_change_and_code_stays() -> None:
    assert cased("How are you?", Random(0)) == "how are you?"
    assert cased("NASA flies", Random(0)) == "NASA flies" and cased("I am", Random(0)) == "I am"
    for seed in range(20):
        assert spaced("a b c d", Random(seed)).split() == ["a", "b", "c", "d"] != spaced("a b c d", Random(seed))
    code = "Explain:\n    x = 1  "
    assert spaced(code, Random(0)) == cased(code, Random(0)) == code


def test_options_are_shuffled_only_where_the_answer_is_the_text_of_one() -> None:
    found = {with_shuffled_options(QUESTION, "apple", Random(seed)) for seed in range(40)}
    assert len(found) > 5
    for text in found:
        lines = text.split("\n")
        assert [line[:3] for line in lines[1:]] == ["A. ", "B. ", "C. ", "D. "]
        assert sorted(line[3:] for line in lines[1:]) == ["apple", "lamp", "river", "stone"]
    for text, answer in (
        (QUESTION, "B"),
        (QUESTION, "B. apple"),
        (QUESTION.replace("lamp", "all of the above"), "apple"),
        (QUESTION.replace("lamp", "A and C"), "apple"),
        (QUESTION + "\nIs it B?", "apple"),
        (QUESTION.replace("C.", "E."), "apple"),
        (QUESTION.replace("lamp", "apple"), "apple"),
        (QUESTION.replace("D. lamp", "D. 以上都是"), "apple"),
    ):
        assert all(with_shuffled_options(text, answer, Random(seed)) == text for seed in range(9)), text


def test_phrases_stand_for_one_another_as_whole_words(tmp_path: Path) -> None:
    off = {"spaces": 0, "case": 0}
    assert variations("How do I bake?", paraphrase=[["how do I", "how can I"]], **off) == ["How can I bake?"]
    assert variations("chow do I", paraphrase=[["how do I", "how can I"]], **off) == []
    assert variations("请问你是谁", paraphrase=[["请问", "告诉我"]], **off) == ["告诉我你是谁"]
    for name, text in (("p.json", '[["big", "large"]]'), ("p.txt", "big\tlarge\n")):
        (tmp_path / name).write_text(text)
        assert variations("a big dog", paraphrase=str(tmp_path / name), **off) == ["a large dog"]
    (tmp_path / "one.txt").write_text("big\n")
    for name in ("nothing.txt", "one.txt"):
        with pytest.raises(OptionError, match="augment: paraphrase: "):
            variations("a", paraphrase=str(tmp_path / name))


def test_the_system_prompt_may_be_left_out() -> None:
    augmenter = Augmenter.of(DataConfig(data_augmentation=True, augment={"drop_system": 1, "case": 0, "spaces": 0}), 1)
    assert augmenter is not None
    [(made, changes)] = augmenter.variations(conversation("Hi", system="Be kind."), "row")
    assert made.system is None and changes == ("drop_system",)


@pytest.fixture
def inputs(tiny_model: Path, tmp_path: Path) -> Callable[..., Inputs]:
    rows = [{"instruction": f"What comes after number {n}?", "output": f"It is {n + 1}."} for n in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    def read(**options: Any) -> Inputs:
        wanted = {
            "model_name_or_path": tiny_model,
            "dataset": tmp_path / "rows.json",
            "template": "qwen",
            "disable_tqdm": True,
        }
        wanted |= {"data_augmentation": True, "augment": '{"copies": 3}'} | options
        return read_inputs(load([f"{key}={value}" for key, value in wanted.items()], command="train"))

    return read


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_to_evaluate_have_no_variations_on_either_side(inputs: Callable[..., Inputs], streaming: bool) -> None:
    more = {"streaming": True, "max_steps": 1} if streaming else {}
    found = inputs(val_size=4, **more)
    prepared, decode = found.prepared, found.tokenizer.decode

    def prompts(samples: Any) -> list[str]:
        return [
            " ".join(decode(samples[row].input_ids).lower().split()).replace(" <", "<") for row in range(len(samples))
        ]

    trained, evaluated = prompts(prepared.train), prompts(prepared.evals["eval"])
    assert len(evaluated) == 4 and not {*evaluated} & {*trained}
    assert len({*trained}) == 16 and len(trained) > 30
    added = prepared.report.tallies.varied
    assert added["rows"] >= len(trained) - 16 and added["spaces"] and added["case"]
    assert any(
        line.startswith(f"added         {added['rows']} variations of prompts (case ")
        for line in prepared.report.lines()
    )


def test_variations_are_part_of_what_a_run_is_known_by(inputs: Callable[..., Inputs], tmp_path: Path) -> None:
    first = inputs().prepared.fingerprint
    assert inputs().prepared.fingerprint == first  # from the cache this time
    assert inputs(seed=7).prepared.fingerprint != first
    assert inputs(augment='{"copies": 2}').prepared.fingerprint != first
    file = tmp_path / "phrases.txt"
    file.write_text("What comes\tTell me what comes\n")
    phrased = inputs(augment=json.dumps({"paraphrase": str(file)})).prepared.fingerprint
    file.write_text("What comes\tSay what comes\n")
    assert inputs(augment=json.dumps({"paraphrase": str(file)})).prepared.fingerprint != phrased


def test_inspect_shows_variations(inputs: Callable[..., Inputs], tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    inputs(disable_cache=True)
    words = [f"model_name_or_path={tiny_model}", f"dataset={tmp_path / 'rows.json'}", "template=qwen"]
    assert main(["inspect", *words, "data_augmentation=true", "--row", "1"]) == 0
    assert "variation, " in capsys.readouterr().out


def test_what_is_wrong_with_augment_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "model_name_or_path=x", "dataset=y", "data_augmentation=true"]
    for augment, told in (
        ('{"copys": 2}', "unknown key 'copys'; did you mean 'copies'? known are copies, spaces"),
        ('{"copies": 0}', "copies: must be a whole number from 1 to 100, got 0"),
        ('{"case": 2}', "case: must be a number from 0 to 1, got 2"),
        ('{"paraphrase": 3}', "paraphrase: must be lists of phrases, or a file's name, got 3"),
    ):
        assert main([*words, f"augment={augment}"]) == 2
        assert told in capsys.readouterr().err
    assert main([*words, "stage=pt"]) == 2
    assert "varies the prompts of conversations, as in the stage sft, not in pt" in capsys.readouterr().err
