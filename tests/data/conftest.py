"""Fixtures of the tests of data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    """The tiny model's ChatML tokenizer, with `<think>` as a token that is not special."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["<think>"])
    return tokenizer


@pytest.fixture(scope="session")
def neox(shared_data: Path) -> PreTrainedTokenizerBase:
    """A real tokenizer of 50,000 entries, with ChatML's tokens added."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "gpt-neox")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """`write("rows.json", rows)` writes JSON, text or bytes below the test's folder and returns the path."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which this test's prepared data is kept."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
