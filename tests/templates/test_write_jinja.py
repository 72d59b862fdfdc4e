"""The Jinja written of a named template gives its text in transformers."""

import json
from dataclasses import replace
from typing import Any

import pytest
from conversations import CALLS, ORDINARY, THOUGHTS, TURNS, conversations
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tunesmith import catalog
from tunesmith.templates.chat_messages import Style, as_chat
from tunesmith.templates.compare import asks_otherwise, written
from tunesmith.templates.conversation import Conversation, Message
from tunesmith.templates.jinja import JinjaFormat
from tunesmith.templates.render import TemplateFormat

NAMES = catalog.names("template")
TOKENS = {"bos_token": "<the-first>", "eos_token": "<the-last>"}


def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **TOKENS)


TOKENIZER = tokenizer()


def form(name: str, **changes: Any) -> TemplateFormat:
    return TemplateFormat(replace(catalog.find("template", name), **changes))


def applied(source: str, conversation: Conversation, *, prompt: bool, **variables: Any) -> str:
    chat = as_chat(conversation, Style())
    return str(
        TOKENIZER.apply_chat_template(
            chat.messages,
            tools=json.loads(conversation.tools or "null"),
            chat_template=source,
            tokenize=False,
            add_generation_prompt=prompt,
            **variables,
        )
    )


def both(made: TemplateFormat, conversation: Conversation) -> list[tuple[str, str]]:
    """Our text and transformers', of the row and of its prompt."""
    source = made.chat_template()
    return [
        (written(made.render(conversation), TOKENS), applied(source, conversation, prompt=False)),
        (written(made.prompt(conversation), TOKENS), applied(source, conversation, prompt=True)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_rows_are_the_same_text(name: str) -> None:
    for conversation in ORDINARY.values():
        for ours, theirs in both(form(name), conversation):
            assert ours == theirs


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), conversations())
def test_any_words_are_the_same_text(name: str, conversation: Conversation) -> None:
    for ours, theirs in both(form(name, thinking="as_data"), conversation):
        assert ours == theirs


@pytest.mark.parametrize("thinking", ["as_data", "strip_history", "empty_masked", "strip"])
@pytest.mark.parametrize("name", ["qwen3", "deepseekr1", "chatml", "gpt_oss", "glm4_7"])
def test_the_treatment_of_thoughts_is_written_too(name: str, thinking: str) -> None:
    for enable in (True, False, None):
        for conversation in (THOUGHTS, TURNS, CALLS):
            for ours, theirs in both(form(name, thinking=thinking, enable_thinking=enable), conversation):
                assert ours == theirs


@pytest.mark.parametrize("name", ["qwen3", "deepseekr1", "glm4_7", "gemma4"])
def test_enable_thinking_can_be_told_when_asking(name: str) -> None:
    source = form(name).chat_template()
    quiet = form(name, enable_thinking=False)
    for conversation in (THOUGHTS, TURNS):
        asked = Conversation(conversation.messages[:-1], conversation.system)
        assert written(quiet.prompt(asked), TOKENS) == applied(source, asked, prompt=True, enable_thinking=False)


def test_changes_of_a_template_are_written_too() -> None:
    made = form("llama3", default_system="Be good.", date_string="1 Jan 2030", tool_format="qwen3_5")
    for conversation in (TURNS, CALLS, ORDINARY["single"]):
        for ours, theirs in both(made, conversation):
            assert ours == theirs


@pytest.mark.parametrize("name", ["llama2", "mistral", "gemma", "qwen", "default"])
def test_turns_in_an_unusual_order_are_the_same_text(name: str) -> None:
    rows = [
        Conversation([Message("assistant", "a"), Message("user", "b"), Message("assistant", "c")], system="s"),
        Conversation([Message("user", "a"), Message("assistant", "b"), Message("assistant", "c")]),
        Conversation([Message("user", "a"), Message("user", "b"), Message("assistant", "c")], system="s"),
        Conversation([Message("user", "a"), Message("system", "t"), Message("assistant", "c")], system="s"),
        Conversation([Message("user", "a"), Message("assistant", "b"), Message("system", "t"), Message("user", "c")]),
    ]
    for row in rows:
        for ours, theirs in both(form(name), row):
            assert ours == theirs


@pytest.mark.parametrize("name", NAMES)
def test_auto_with_the_written_template_trains_the_same_words(name: str) -> None:
    """The two ways to follow a format meet: what a run saves is what `auto` reads again."""
    named = form(name)
    auto = JinjaFormat("auto", named.chat_template(), TOKENS)
    assert written(auto.render(TURNS), {}) == written(named.render(TURNS), TOKENS)
    if not named.template.reasoning:
        learned = [written([span], TOKENS) for span in named.render(TURNS) if span.learned]
        assert [span.text for span in auto.render(TURNS) if span.learned] == learned
        assert asks_otherwise(auto, TURNS) is None
