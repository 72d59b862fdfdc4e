"""`tunesmith lint`: what it prints, what it writes, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.log import OptionError
from tunesmith.look.lint_command import lint_command

ROWS: list[dict[str, Any]] = [
    {"instruction": "Where do we meet?", "output": "In the cafÃ©."},
    {"instruction": "When is that?", "output": "At noon, as always.</s>"},
    {"instruction": "When  is that?", "output": "At noon, as always.</s>"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "talk.json"
    file.write_text(json.dumps(ROWS), encoding="utf-8")
    return file


def test_warnings_end_with_0_and_errors_with_3(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_command([f"dataset={rows}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"3 rows ({rows}): 3 warnings"
    rows.write_text(json.dumps([*ROWS, {"instruction": "Hi", "output": ""}]), encoding="utf-8")
    assert lint_command([f"dataset={rows}"]) == 3
    assert "error: empty: an empty question, answer or text: 1 row" in capsys.readouterr().out


def test_json_is_all_there_is_on_standard_output(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_command([f"dataset={rows}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["check"] for each in found["findings"]] == ["special_token", "duplicate", "wrong_encoding"]
    assert all(each["severity"] == "warning" and each["rows"] and each["mended_by_fix"] for each in found["findings"])


def test_a_model_brings_its_tokens(rows: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"dataset={rows}", f"model_name_or_path={tiny_model}", "template=chatml", "cutoff_len=22"]
    assert lint_command(words) == 0
    assert "warning: too_long" in capsys.readouterr().out
    assert lint_command([*words, "overflow=error"]) == 0


def test_what_can_be_mended_is_written(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = tmp_path / "fixed.jsonl"
    assert lint_command([f"dataset={rows}", "--fix", str(fixed)]) == 0
    assert [json.loads(line) for line in fixed.read_text(encoding="utf-8").splitlines()] == [
        {"instruction": "Where do we meet?", "output": "In the café."},
        {"instruction": "When is that?", "output": "At noon, as always."},
    ]
    said = capsys.readouterr().err
    assert "2 rows, 1 mended (wrong_encoding), 1 mended (special_token), 1 left out (duplicate)" in said
    assert lint_command([f"dataset={fixed}"]) == 0
    assert "nothing to complain about" in capsys.readouterr().out


def test_no_file_is_written_over(rows: Path, tmp_path: Path) -> None:
    before = rows.read_bytes()
    for file in (rows, tmp_path / "there.jsonl"):
        (tmp_path / "there.jsonl").write_text("mine", encoding="utf-8")
        with pytest.raises(OptionError, match="is there already"):
            lint_command([f"dataset={rows}", "--fix", str(file)])
    assert rows.read_bytes() == before and (tmp_path / "there.jsonl").read_text(encoding="utf-8") == "mine"


def test_several_datasets_are_not_mended_into_one(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--fix: writes one dataset at a time"):
        lint_command([f"dataset={rows},{rows}", "--fix", str(tmp_path / "x.jsonl")])


def test_it_needs_no_torch_without_a_model(rows: Path) -> None:
    code = "import sys; from tunesmith.cli import main; code = main(sys.argv[1:]); print(code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "lint", f"dataset={rows}"], capture_output=True, text=True)
    ended, *modules = done.stdout.splitlines()[-1].split()
    assert ended == "0" and not {"torch", "transformers"} & set(modules)


def test_a_dataset_is_needed() -> None:
    with pytest.raises(OptionError, match="dataset: is missing"):
        lint_command([])
