"""What a run saves asks as the run trained: `apply_chat_template` of its folder's tokenizer gives the training prompts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_templates
from conversations import CALLS, SINGLE, THOUGHTS, TURNS
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunesmith.config.load import load
from tunesmith.data.chat_format import chat_format
from tunesmith.data.encoding.encode import Encoder
from tunesmith.templates.compare import EMPTY_THOUGHT
from tunesmith.templates.conversation import Conversation

Train = Callable[..., Path]
SEVERAL = {"default": real_templates.CHATML, "tool_use": real_templates.QWEN3, "rag": "{{ documents }}"}


def settled(folder: Path) -> tuple[PreTrainedTokenizerBase, Encoder]:
    """The folder's tokenizer, and an encoder by the folder's own config.yaml."""
    cfg = load([str(folder / "config.yaml")], command="train").config.data
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer, Encoder(tokenizer, chat_format(cfg, tokenizer), cfg)


def asked(tokenizer: PreTrainedTokenizerBase, row: Conversation) -> list[int]:
    """By transformers: messages and tools as anyone writes them."""
    system = [{"role": "system", "content": row.system}] if row.system is not None else []
    messages: list[dict[str, Any]] = []
    for message in row.messages:
        if message.role == "function":
            calls = json.loads(message.content)
            calls = [{"type": "function", "function": one} for one in (calls if isinstance(calls, list) else [calls])]
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        else:
            role = "tool" if message.role == "observation" else message.role
            messages.append({"role": role, "content": message.content})
    tools = json.loads(row.tools) if row.tools else None
    found: list[int] = tokenizer.apply_chat_template(
        [*system, *messages], tools=tools, add_generation_prompt=True, return_dict=False
    )
    return found


def agree(folder: Path, *rows: Conversation) -> None:
    tokenizer, encoder = settled(folder)
    assert encoder.chat_format is not None
    for row in rows:
        spans = encoder.chat_format.render(row)
        for number, span in enumerate(spans):
            if span.learned:
                trained_behind = encoder.encode_prompt(spans[:number])
                ids = asked(tokenizer, replace(row, messages=row.messages[: span.message]))
                assert trained_behind[: len(ids)] == ids
                more = tokenizer.decode(trained_behind[len(ids) :])
                assert not more or EMPTY_THOUGHT.fullmatch(more)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`model({"default": ...})`: the tiny model with other chat templates."""

    def make(template: str | dict[str, str]) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(tiny_model, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        return folder

    return make


def test_several_templates_are_saved_and_chosen_between(
    train: Train, model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("several", model_name_or_path=model(SEVERAL), template="auto", max_steps=1)
    assert AutoTokenizer.from_pretrained(folder).chat_template == SEVERAL
    plain_tools = json.dumps([one.get("function", one) for one in json.loads(CALLS.tools)])
    wrapped = [{"type": "function", "function": one} for one in json.loads(plain_tools)]
    agree(folder, SINGLE, TURNS, replace(CALLS, tools=json.dumps(wrapped)))
    assert "note: template: auto: proved on 16 rows and 5 generated conversations" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"template": '{"user": "Q {{content}}{{answer}} A ", "assistant": "{{content}}{{eos}}", "system": "S {{content}} "}'},
        {"template": "qwen3", "enable_thinking": "false"},
        {"template": "llama3", "default_system": "Be good."},
        {"template": "auto", "default_system": "Be good."},
    ],
)  # fmt: skip
def test_options_are_saved_with_the_template(train: Train, options: dict[str, Any]) -> None:
    folder = train("one", max_steps=1, **options)
    agree(folder, SINGLE, TURNS)
    if options["template"] == "qwen3":
        agree(folder, Conversation(THOUGHTS.messages[:2]))
