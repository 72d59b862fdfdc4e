"""Help, the schema and the docs page come from the docstrings under the fields, whole and correct."""

import json
import re

import pytest

from tunesmith.config import compat, explain
from tunesmith.config.schema import SECTIONS, fields
from tunesmith.log import OptionError


def test_every_option_has_a_help_that_ends_as_a_sentence():
    assert set(explain.docstrings()) == set(fields())
    for name, text in explain.docstrings().items():
        assert text.endswith(".") and text[0] in "`ABCDEFGHIJKLMNOPQRSTUVWXYZ", f"{name}: {text}"


def test_help_lists_every_option_once(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = explain.help_for("train")
    assert max(map(len, text.splitlines())) <= 100
    built, unbuilt = text.split("Not built yet: ")
    listed = re.findall(r"(?m)^  --(\w+)", built) + re.findall(r"\w+", unbuilt)
    assert sorted(listed) == sorted(fields())
    assert "--lora_rank N [8]\n      Inner dimension of each LoRA pair.\n" in text


@pytest.mark.parametrize("name", list(fields()))
def test_every_option_has_a_page(name):
    page = explain.page(name)
    assert page.startswith(name + "\n") and "type: " in page and "default: " in page


def test_a_page_tells_all(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = explain.page("lora_dropout").splitlines()
    assert page == [
        "lora_dropout",
        "Dropout before LoRA's first matrix, in training only.",
        "",
        "type:      a number",
        "range:     at least 0, below 1",
        "default:   0",
        "section:   tuning: Which weights are trained.",
    ]
    assert (
        "also:      optimizer, adafactor, use_galore, use_apollo, use_badam, use_adam_mini, use_muon\nnames:     adamw_torch,"
        in explain.page("optim")
    )
    assert "not built: rm, dpo" in explain.page("stage")


def test_explain_takes_every_spelling_and_refuses_others(capsys):
    assert explain.explain_command(["--num-epochs", "bf16"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("num_train_epochs\n") and "\n\ncompute_type\n" in text
    with pytest.raises(OptionError, match=r"unknown option 'lora_rnk'; did you mean 'lora_rank'\?"):
        explain.explain_command(["lora_rnk"])
    assert explain.explain_command([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in fields())


def test_the_schema_knows_every_spelling_and_nothing_else():
    schema = explain.schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {*fields(), *compat.CANONICAL, *compat.SWITCHES, *compat.RATIOS}
    assert all(declared["description"] for declared in schema["properties"].values())
    assert schema["properties"]["cutoff_len"]["minimum"] == 1
    assert schema["properties"]["stage"]["enum"][:2] == ["pt", "sft"]
    assert {"type": "string"} in schema["properties"]["dataset"]["anyOf"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_docs_page_has_a_row_for_every_option():
    rows = re.findall(r"(?m)^\| `(\w+)` \|", explain.markdown())
    assert rows == list(fields())
    assert all(line.count(" | ") == 3 for line in explain.markdown().splitlines() if line.startswith("| `"))
    assert set(explain.TITLES) == set(SECTIONS)


def test_the_first_sentence():
    assert explain.first_sentence("One: a 1.5 b. Two.") == "One: a 1.5 b."
    assert explain.first_sentence("Only one.") == "Only one."
