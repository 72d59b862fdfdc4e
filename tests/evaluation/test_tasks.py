"""Files of questions: each way to write them is read as it is meant, and each mistake is told with file and row."""

import json
from pathlib import Path

import pytest

from tunesmith.evaluation.tasks import find_place, read_task
from tunesmith.log import DataError, OptionError

SUN = {"question": "What is the Sun?", "choices": ["a planet", "a star", "a moon"]}


def written(folder: Path, *rows: dict, name: str = "sky.jsonl") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("answer", ["B", "b", 1, "1", "a star", " a star "])
def test_an_answer_is_a_letter_a_number_or_a_text(tmp_path, answer):
    (question,) = read_task(written(tmp_path, SUN | {"answer": answer})).questions
    assert (question.answer, question.letters, question.subject) == (1, ["A", "B", "C"], "")
    assert question.where.endswith("sky.jsonl row 1")


def test_a_number_that_is_a_choice_is_that_choice(tmp_path):
    row = {"question": "3 + 1?", "A": "3", "B": "4", "C": "5", "D": "6"}
    texts = read_task(written(tmp_path, row | {"answer": "4"}, row | {"answer": 0})).questions
    assert [question.answer for question in texts] == [1, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (SUN, "row 1: has no answer; its columns are question, choices"),
        ({"text": "?", "answer": "A"}, "row 1: has no question; its columns are text, answer"),
        ({"question": "?", "answer": "A"}, r"row 1: needs choices, a list of 2 to 26, or columns A, B"),
        ({"question": "?", "A": "1", "C": "2", "answer": "A"}, "row 1: the choices A, C leave out a letter"),
        (SUN | {"answer": "D"}, r"row 1: the answer 'D' is none of the choices \(A: a planet, B: a star, C: a moon\)"),
        (SUN | {"answer": 7}, "row 1: the answer '7' is none of the choices"),
        ({"question": "?", "choices": ["B", "A"], "answer": "A"}, "row 1: the answer 'A' means several of the choices"),
        ({"question": "?", "choices": [["a"], "b"], "answer": "A"}, "row 1: a choice must be a text"),
    ],
)
def test_a_row_that_is_no_question_is_refused(tmp_path, row, reason):
    with pytest.raises(DataError, match=reason):
        read_task(written(tmp_path, row))


def test_a_file_without_questions_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no question to ask"):
        read_task(written(tmp_path))


def test_csv_with_and_without_a_header(tmp_path):
    bare, named = tmp_path / "bare.csv", tmp_path / "named.csv"
    bare.write_text('"What, then?",2,2,"a ""b""",4,C\nWho?,a,b,c,d,A\n', encoding="utf-8")
    named.write_text("question,A,B,answer,subject\nWho?,me,you,B,people\n", encoding="utf-8")
    first, second = read_task(bare).questions
    assert (first.text, first.choices, first.answer) == ("What, then?", ("2", "2", 'a "b"', "4"), 2)
    assert second.where.endswith("bare.csv row 2")
    (question,) = read_task(named).questions
    assert (question.choices, question.answer, question.subject) == (("me", "you"), 1, "people")


def test_dev_rows_lie_beside_in_a_column_or_in_a_folder(tmp_path):
    row = SUN | {"answer": "B"}
    beside = read_task(written(tmp_path / "a", row, name="sky_test.jsonl"))
    assert not beside.shown and beside.name == "sky"
    written(tmp_path / "a", row | {"subject": "x"}, row, name="sky_dev.jsonl")
    beside = read_task(tmp_path / "a" / "sky_test.jsonl")
    assert [len(beside.shots(subject, None)) for subject in ("x", "y")] == [1, 1]
    column = read_task(written(tmp_path, row | {"split": "dev"}, row | {"split": "test"}))
    assert (len(column.questions), len(column.shots("", 1))) == (1, 1)
    for split in ("dev", "test", "val"):
        for subject in ("law", "art"):
            file = tmp_path / "mmlu" / split / f"{subject}_{split}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("Who?,a,b,c,d,A\n" * 2, encoding="utf-8")
    folder = read_task(tmp_path / "mmlu")
    assert list(folder.subjects()) == ["art", "law"] and len(folder.questions) == 4
    with pytest.raises(DataError, match="mmlu/law: n_shot asks for 3 solved questions; there are 2 dev rows"):
        folder.shots("law", 3)


def test_a_name_is_a_place_or_one_of_the_harness(tmp_path):
    (tmp_path / "mmlu").mkdir()
    assert find_place("mmlu_test", str(tmp_path)) == tmp_path / "mmlu"
    assert find_place("hellaswag", str(tmp_path)) is None
    with pytest.raises(OptionError, match=r"there is no file or folder 'sky\.csv'"):
        find_place("sky.csv", str(tmp_path))
