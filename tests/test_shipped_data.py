"""The data that comes along is what its generator makes, is well formed, and says only what the demo needs it to say."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def read(repo: Path, name: str) -> Any:
    return json.loads((repo / "data" / name).read_text(encoding="utf-8"))


def test_the_generated_files_are_what_the_grammar_makes(repo: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_corpus", repo / "data" / "make_corpus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, content in module.corpus().items():
        assert (repo / "data" / name).read_text(encoding="utf-8") == content, f"run data/make_corpus.py to renew {name}"


def test_every_registered_file_is_there(repo: Path) -> None:
    index = read(repo, "dataset_info.json")
    assert {"identity", "small_talk", "stories"} <= index.keys()
    assert all((repo / "data" / entry["file_name"]).is_file() for entry in index.values())


def test_identity_tells_the_name_in_every_answer(repo: Path) -> None:
    rows = read(repo, "identity.json")
    assert all(row.keys() == {"instruction", "input", "output"} for row in rows)
    assert all("{{name}}" in row["output"] for row in rows)
    assert sum("{{author}}" in row["output"] for row in rows) > len(rows) / 2
    assert set(re.findall(r"{{.*?}}", json.dumps(rows))) == {"{{name}}", "{{author}}"}
    chinese = sum(bool(CHINESE.search(row["instruction"])) for row in rows)
    assert chinese >= 50 and len(rows) - chinese >= 50


def test_no_question_is_asked_twice(repo: Path) -> None:
    for name in ("identity.json", "small_talk.json"):
        asked = [(row["instruction"], row["input"]) for row in read(repo, name)]
        assert len(asked) == len(set(asked)), name


def test_small_talk_answers_who_it_is_without_a_name(repo: Path) -> None:
    answers = {row["instruction"]: row["output"] for row in read(repo, "small_talk.json")}
    assert answers["Who are you?"] == "I am a small language model."
    assert answers["你叫什么名字？"] == "我是一个小小的语言模型，没有名字。"
    assert not any("{" in text for row in answers.items() for text in row)


def test_no_slot_of_the_grammar_is_left_open(repo: Path) -> None:
    stories = (repo / "data" / "stories.txt").read_text(encoding="utf-8")
    assert not re.search(r"[{}^|]|\ba [aeiou]|  ", stories)
    assert 150_000 < len(stories.encode()) < 300_000
