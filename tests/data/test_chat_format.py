"""A named template that differs from the tokenizer's own is told once, with both texts."""

from pathlib import Path

import pytest
import real_templates
from transformers import AutoTokenizer

from tunesmith.config.data import DataConfig
from tunesmith.data.chat_format import chat_format, compare_with_own


def told(model: Path, template: str, capsys: pytest.CaptureFixture[str]) -> str:
    tokenizer = AutoTokenizer.from_pretrained(model)
    cfg = DataConfig(template=template)
    compare_with_own(cfg, chat_format(cfg, tokenizer), tokenizer)
    return capsys.readouterr().err


def test_a_difference_is_shown_with_both_texts(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(tiny_model, "llama3", capsys)
    assert said.count("\n") == 1
    assert "warning: template: llama3 differs from the tokenizer's own" in said
    assert "<|start_header_id|>user" in said
    assert "<|im_start|>user" in said


def test_equal_templates_are_not_told(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(tiny_model, "chatml", capsys) == ""
    assert told(tiny_model, "auto", capsys) == ""


def test_nothing_else_is_said_of_a_template_that_was_not_chosen(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    cfg = DataConfig(template="chatml")
    for own in (real_templates.SHOUTS, {"tool_use": real_templates.CHATML}):
        tokenizer.chat_template = own
        compare_with_own(cfg, chat_format(cfg, tokenizer), tokenizer)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "chatml differs from the tokenizer's own" in said
