"""The proof: quiet where asking is as training, one line where it is not, an error where an answer would be another."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_templates
import tiny
from conversations import TOOLS
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.chat_format import chat_format
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.encoding.proof import prove
from tunesmith.data.reading.sources import find_datasets
from tunesmith.log import DataError
from tunesmith.templates.conversation import Conversation, Span
from tunesmith.templates.jinja import JinjaFormat
from tunesmith.templates.template import data

Write = Callable[[str, Any], Path]
Prove = Callable[..., str]
PLAIN = [
    {"role": "user", "content": "Hi <|im_end|> you"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye!"},
]
THOUGHTS = [
    {**turn, "content": f"<think>\nWell {place}.\n</think>\n\n{turn['content']}"} if place % 2 else turn
    for place, turn in enumerate(PLAIN)
]
CALLS = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": city}}} for city in ("Oslo", "Rome")],
    },
    {"role": "tool", "content": "-3"},
    {"role": "tool", "content": "20"},
    {"role": "assistant", "content": "Cold; warm."},
]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    made = tiny.tokenizer()
    special = ["<|im_start|>", "<s>", "<|User|>", "<|Assistant|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    made.add_special_tokens({"additional_special_tokens": [*special, "[gMASK]", "<sop>", "<|end|>"]})
    made.bos_token = "<s>"
    return made


@pytest.fixture
def proved(write: Write, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]) -> Prove:
    """`proved(source, messages)`: what the proof says of a chat template on such rows."""

    def run(source: str | dict[str, str], messages: Any, tools: str = "", **options: Any) -> str:
        path = write("rows.json", [{"messages": messages, "tools": tools}] * 20)
        tokenizer.chat_template = source
        cfg = DataConfig(**{"template": "auto", **options})
        datasets = find_datasets([str(path)], str(path.parent))
        capsys.readouterr()
        prove(tokenizer, Encoder(tokenizer, chat_format(cfg, tokenizer), cfg), datasets, "conversation")
        assert tokenizer.chat_template == source
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "source", ["CHATML", "CHATML_WITH_BLOCKS", "QWEN3", "EMPTY_THOUGHT_INSIDE", "GEMMA", "MISTRAL"]
)
def test_agreement_is_one_quiet_line(proved: Prove, source: str) -> None:
    said = proved(vars(real_templates)[source], PLAIN)
    assert next(line for line in said.splitlines() if "no token for" not in line).startswith(
        "note: template: auto: proved on 16 rows and "
    )
    assert "otherwise" not in said and len(said.splitlines()) < 3


def test_tools_and_parallel_calls_are_proved(proved: Prove) -> None:
    assert "proved on 16 rows and 5 generated" in proved(real_templates.QWEN3, CALLS, TOOLS)
    several = {"default": real_templates.CHATML, "tool_use": real_templates.QWEN3}
    assert "proved on 16 rows and 5 generated" in proved(several, CALLS, TOOLS)


def test_the_real_deepseek_r1_is_proved_with_calls(proved: Prove, shared_data: Path) -> None:
    config = json.loads((shared_data / "tokenizers" / "deepseek-r1" / "tokenizer_config.json").read_text("utf-8"))
    assert "proved on 16 rows and 5 generated" in proved(config["chat_template"], CALLS)


def test_refused_rows_are_counted_with_the_reason(proved: Prove) -> None:
    said = proved(real_templates.CHATML, CALLS, TOOLS)
    assert "it refuses 16 of 16 rows: " in said and "rows.json row 1: the chat template leaves out" in said


def test_kinds_that_no_row_is_of_are_only_noted(proved: Prove) -> None:
    said = proved(real_templates.CHATML, PLAIN)
    assert said.count("\n") == 1
    assert "it refuses conversations with a tool, with parallel calls" in said


def test_history_that_is_asked_without_its_thoughts_is_told_with_the_way_out(proved: Prove) -> None:
    said = proved(real_templates.QWEN3, THOUGHTS)
    assert said.count("\n") == 1
    assert "warning: template: auto: " in said and "rows.json row 1: the answer (message 4) is trained behind" in said
    assert "thinking: strip_history" in said and "(so in 16 of 16 rows)" in said
    for options in ({"thinking": "strip_history"}, {"enable_thinking": False}):
        assert "note: template: auto: proved on 16 rows" in proved(real_templates.QWEN3, THOUGHTS, **options)


def test_a_call_that_the_template_drops_is_a_refusal(proved: Prove) -> None:
    first_only = real_templates.QWEN3.replace("message.tool_calls or []", "(message.tool_calls or [])[:1]")
    assert "leaves out a call (turn 2)" in proved(first_only, CALLS, TOOLS)


def test_what_ends_answers_is_told(
    proved: Prove, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, write: Write
) -> None:
    ids = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>", "<|observation|>"])
    tokenizer.name_or_path = str(write("generation_config.json", {"eos_token_id": ids}).parent)
    assert "'<|user|>', with which the next turn begins, is trained as the end" in proved(
        real_templates.NEXT_TURN_ENDS, PLAIN
    )


def test_a_date_is_told_and_saved(proved: Prove) -> None:
    dated = "{{ strftime_now('%d.%m.') }}" + real_templates.CHATML
    assert "its date is always 26 Jul 2024, in the saved template too" in proved(dated, PLAIN)


@pytest.mark.parametrize("source", ["QWEN3", "CHATML", "GEMMA"])
def test_options_are_in_the_saved_template(proved: Prove, source: str) -> None:
    options = {"default_system": "Be 'good'\\\n{{ yes }}.", "enable_thinking": False}
    assert "note: template: auto: proved on 16 rows" in proved(vars(real_templates)[source], PLAIN, **options)


def test_named_templates_are_proved_without_a_word(proved: Prove) -> None:
    assert proved(real_templates.CHATML, PLAIN, template="chatml") == ""
    assert proved(real_templates.CHATML, THOUGHTS, template="qwen3") == ""


def test_an_empty_thought_that_is_trained_is_told_with_the_way_out(proved: Prove) -> None:
    said = proved(real_templates.CHATML, PLAIN, template="qwen3")
    assert said.startswith("note: enable_thinking: qwen3 begins answers without a thought with an empty one")
    for options in ({"enable_thinking": False}, {"enable_thinking": None}, {"thinking": "as_data"}):
        assert "note: enable_thinking" not in proved(real_templates.CHATML, PLAIN, template="qwen3", **options)


class Rewriting(JinjaFormat):
    """A format that trains another answer than the row's."""

    def render(self, conversation: Conversation) -> list[Span]:
        spans = super().render(conversation)
        return [replace(span, pieces=(data("Sorry."),)) if span.learned else span for span in spans]


def test_another_answer_than_the_row_s_is_an_error(write: Write, tokenizer: PreTrainedTokenizerBase) -> None:
    path, cfg = write("rows.json", [{"messages": PLAIN}]), DataConfig()
    encoder = Encoder(tokenizer, Rewriting("auto", real_templates.CHATML), cfg)
    with pytest.raises(DataError, match=r"rows\.json row 1: the answer that would be trained \(message 2\) is not"):
        prove(tokenizer, encoder, find_datasets([str(path)], ""), "conversation")
