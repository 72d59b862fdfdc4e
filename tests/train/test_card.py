"""The model card says what is true, reads as hubs read it, and its code runs."""

import contextlib
import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tunesmith.config.schema import fields
from tunesmith.train.telling.card import SHOWN, SHOWN_FOR, Card, render, write_card


@pytest.fixture
def card(tmp_path: Path) -> Callable[..., Card]:
    def build(**changes: Any) -> Card:
        facts: dict[str, Any] = {
            "folder": tmp_path / "my run",
            "base_model": "Qwen/Qwen2.5-0.5B",
            "is_adapter": True,
            "has_chat_template": True,
            "datasets": ["identity", "hf:org/chat#100", str(tmp_path / "private" / "rows.jsonl")],
            "options": {
                "stage": "sft", "finetuning_type": "lora", "learning_rate": 1e-4, "max_steps": None, "lora_rank": 8,
                "lora_target": ["q_proj", "v_proj"], "hf_hub_token": "hf_secret", "freeze_trainable_layers": 2,
            },
            "results": {"train_loss": 0.123456789, "epoch": 3.0},
            "versions": {"tunesmith": "0.1", "torch": "2.13.0"},
        }  # fmt: skip
        return Card(**{**facts, **changes})

    return build


def front_matter(page: str) -> dict[str, Any]:
    return YAML(typ="safe").load(page.split("---\n")[1])


def test_hubs_read_the_front_matter(card: Callable[..., Card]) -> None:
    assert front_matter(render(card())) == {
        "license": "other",
        "library_name": "peft",
        "base_model": "Qwen/Qwen2.5-0.5B",
        "datasets": ["org/chat"],
        "pipeline_tag": "text-generation",
        "tags": ["tunesmith", "sft", "lora"],
    }


def test_local_folders_are_named_but_not_where_they_lie(card: Callable[..., Card], tmp_path: Path) -> None:
    (tmp_path / "private" / "base").mkdir(parents=True)
    page = render(card(folder=Path("saves/run"), base_model=str(tmp_path / "private" / "base"), is_adapter=False))
    assert "base_model" not in front_matter(page)
    assert front_matter(page)["library_name"] == "transformers"
    assert "A version of `base`" in page
    assert "`rows.jsonl`" in page
    assert "private" not in page


def test_the_page_lists_what_shaped_training_and_no_secret(card: Callable[..., Card]) -> None:
    page = render(card())
    assert "| `learning_rate` | `0.0001` |" in page
    assert "| `lora_target` | `q_proj, v_proj` |" in page
    assert "| train_loss | 0.123457 |" in page
    assert "- torch 2.13.0" in page
    assert not any(word in page for word in ("hf_secret", "max_steps", "freeze_trainable_layers", "training_loss.png"))


def test_every_listed_option_exists() -> None:
    assert set(SHOWN).union(*SHOWN_FOR.values()) <= fields().keys()


def run_code(page: str) -> str:
    """What the page's Python block prints."""
    code = page.split("```python\n")[1].split("```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


@pytest.mark.parametrize("has_chat_template", [True, False])
def test_the_code_for_a_model_runs(card: Callable[..., Card], tiny_model: Path, has_chat_template: bool) -> None:
    assert run_code(render(card(folder=tiny_model, is_adapter=False, has_chat_template=has_chat_template)))


def test_the_code_for_an_adapter_runs(card: Callable[..., Card], tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "it's mine"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM")).save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(str(folder))
    page = write_card(card(folder=folder)).read_text(encoding="utf-8")
    assert run_code(page)
    shell = page.split("```sh\n")[1].split("```")[0]
    assert shlex.split(shell) == ["tunesmith", "chat", str(folder)]
