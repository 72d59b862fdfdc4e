"""Files of multiple-choice questions -> questions, each with its subject and where it stands.  Knows rows; knows no model.

A row has `question`, `choices` (a list) or columns `A`, `B`, ..., `answer` (a letter, a number from 0, or a choice's text),
and may have `subject` and `split`.  A csv file without a header is read as question, choices, answer, as MMLU's are.
"""

import ast
import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from tunesmith.data.reading.files import Row, is_data_file, read_rows
from tunesmith.log import DataError, OptionError

SHOWN_BEFORE = ("dev", "train")
"""Splits whose rows are shown as solved; those of the others are asked."""

_SPLIT = re.compile(r"(?:^|_)(dev|train|test|val|valid|validation)$")
_NAMES = {"question": ("question", "Question"), "choices": ("choices", "options"), "answer": ("answer", "Answer")}


@dataclass(frozen=True, slots=True)
class Question:
    """`answer`: which of `choices` is right, from 0; `where`: file and row."""

    text: str
    choices: tuple[str, ...]
    answer: int
    subject: str
    where: str

    @property
    def letters(self) -> list[str]:
        """What the model chooses among."""
        return list(ascii_uppercase[: len(self.choices)])


@dataclass(frozen=True, slots=True)
class Task:
    """Questions to ask, and by subject those to show before; `''`: those for subjects without any of their own."""

    name: str
    questions: Sequence[Question]
    shown: Mapping[str, Sequence[Question]]

    def subjects(self) -> dict[str, list[Question]]:
        """The questions by subject, in the order of the file."""
        found: dict[str, list[Question]] = {}
        for question in self.questions:
            found.setdefault(question.subject, []).append(question)
        return found

    def shots(self, subject: str, wanted: int | None) -> list[Question]:
        """What is shown before the questions of a subject.  Raises DataError when there is less than `wanted`."""
        shown = list(self.shown.get(subject) or self.shown.get("", ()))
        if wanted is not None and wanted > len(shown):
            where = f"{self.name}/{subject}" if subject else self.name
            raise DataError(f"{where}: n_shot asks for {wanted} solved questions; there are {len(shown)} dev rows")
        return shown[: DEFAULT_SHOTS if wanted is None else wanted]


DEFAULT_SHOTS = 5


def find_place(name: str, folder: str) -> Path | None:
    """The file or folder that a task's name means; None for one of the harness's.  `folder`: `task_dir`."""
    inside = Path(folder).expanduser() / name
    split = inside.with_name(_SPLIT.sub("", inside.name))  # mmlu_test: the folder mmlu
    for path in (Path(name).expanduser(), inside, split):
        if path.exists():
            return path
    if is_data_file(name) or "/" in name:
        raise OptionError(f"task: there is no file or folder '{name}'")
    return None


def read_task(path: Path) -> Task:
    """The questions of a file, with a dev file beside it; or of a folder, with `test` and `dev` in it.

    Raises DataError naming file and row for what is no question, and when there is nothing to ask.
    """
    asked: list[Question] = []
    shown: list[Question] = []
    for file, split in _files(path):
        subject = _SPLIT.sub("", file.stem) if path.is_dir() else ""
        for row in _rows(file):
            own = str(row.values.get("split") or split)
            (shown if own in SHOWN_BEFORE else asked).append(_question(row, file, subject))
    if not asked:
        raise DataError(f"{path}: there is no question to ask")
    by_subject: dict[str, list[Question]] = {}
    for question in shown:
        by_subject.setdefault(question.subject, []).append(question)
    return Task(_SPLIT.sub("", path.stem) or path.stem, asked, by_subject)


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Each data file with its split."""
    if path.is_file():
        yield path, "test"
        stem = _SPLIT.sub("", path.stem)
        for split in SHOWN_BEFORE:
            beside = path.with_name(f"{stem}_{split}{path.suffix}" if stem else f"{split}{path.suffix}")
            if beside.is_file() and beside != path:
                yield beside, split
        return
    folders = [each for each in sorted(path.iterdir()) if each.is_dir() and _SPLIT.fullmatch(each.name)]
    asked = next(
        (each for name in ("test", "val", "validation", "valid") for each in folders if each.name == name), None
    )
    for folder in [each for each in folders if each is asked or each.name in SHOWN_BEFORE]:
        for file in _data_files(folder):
            yield file, folder.name
    for file in _data_files(path):
        found = _SPLIT.search(file.stem)
        yield file, found[1] if found else "test"


def _data_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and is_data_file(file.name)
            and file.name not in ("mapping.json", "dataset_info.json")]  # fmt: skip


def _rows(file: Path) -> Iterable[Row]:
    if file.suffix.lower() == ".csv" and not _has_header(file):
        return _bare_rows(file)
    return read_rows(str(file))


def _first_line(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{file}: cannot be read: {problem}") from problem


def _has_header(file: Path) -> bool:
    first = [cell.strip().lower() for cell in _first_line(file)]
    return "question" in first or len(first) < 4 or first[-1].upper() not in ascii_uppercase


def _bare_rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        for number, cells in enumerate(csv.reader(stream), start=1):
            if len(cells) < 4:
                raise DataError(
                    f"{file} row {number}: has {len(cells)} columns; question, choices and answer are needed"
                )
            yield Row({"question": cells[0], "choices": cells[1:-1], "answer": cells[-1]}, file.name, number)


def _question(row: Row, file: Path, subject: str) -> Question:
    where = f"{file} row {row.number}"
    text = _value(row, "question")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: has no question; its columns are {', '.join(map(str, row.values))}")
    choices = _choices(row, where)
    answer = _value(row, "answer")
    if answer is None:
        raise DataError(f"{where}: has no answer; its columns are {', '.join(map(str, row.values))}")
    own = row.values.get("subject")
    return Question(text, choices, _answer(answer, choices, where), str(own) if own else subject, where)


def _value(row: Row, name: str) -> Any:
    return next((row.values[each] for each in _NAMES[name] if row.values.get(each) not in (None, "")), None)


def _choices(row: Row, where: str) -> tuple[str, ...]:
    listed = _value(row, "choices")
    if isinstance(listed, str) and listed.startswith("["):  # a list in a csv file
        try:
            listed = ast.literal_eval(listed)
        except (ValueError, SyntaxError) as problem:
            raise DataError(f"{where}: choices are no list: {listed}") from problem
    if listed is None:
        letters = [letter for letter in ascii_uppercase if row.values.get(letter) not in (None, "")]
        if letters != list(ascii_uppercase[: len(letters)]):
            raise DataError(f"{where}: the choices {', '.join(letters)} leave out a letter")
        listed = [row.values[letter] for letter in letters]
    if not isinstance(listed, list) or not 2 <= len(listed) <= len(ascii_uppercase):
        raise DataError(f"{where}: needs choices, a list of 2 to 26, or columns A, B, ...")
    if odd := [each for each in listed if isinstance(each, (dict, list)) or each is None]:
        raise DataError(f"{where}: a choice must be a text, got {odd[0]}")
    return tuple(str(each).strip() for each in listed)


def _answer(answer: object, choices: Sequence[str], where: str) -> int:
    """Which choice is right.  A number counts from 0; a text is a letter, or a choice's own text, or a number."""
    written = str(answer).strip()
    texts = {index for index, choice in enumerate(choices) if choice == written}
    number = int(written) if re.fullmatch(r"\d{1,9}", written) else None
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    meant = set(texts)
    if len(written) == 1 and written.upper() in ascii_uppercase[: len(choices)]:
        meant.add(ascii_uppercase.index(written.upper()))
    if not meant and number is not None and number < len(choices):
        meant.add(number)
    if len(meant) > 1:
        raise DataError(f"{where}: the answer '{written}' means several of the choices; write a number from 0")
    if not meant:
        shown = ", ".join(f"{letter}: {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
        raise DataError(f"{where}: the answer '{written}' is none of the choices ({shown})")
    return meant.pop()
