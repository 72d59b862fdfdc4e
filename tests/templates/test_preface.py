"""What a saved template says by itself: the options of the run that wrote it."""

import json
from typing import Any

import pytest
import real_templates
from conversations import CALLS, SINGLE, TURNS
from transformers.utils.chat_template_utils import render_jinja_template

from tunesmith.templates.chat_messages import Style, as_chat
from tunesmith.templates.conversation import Conversation
from tunesmith.templates.jinja import JinjaFormat
from tunesmith.templates.preface import with_preface

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SPEAKS = "{% set kinds = [a, b] %}{{ kinds | tojson }} {% for m in messages %}{{ m['role'] + ':' + m['content'] }} {% endfor %}"


def applied(source: str, conversation: Conversation, *, prompt: bool = False, **variables: Any) -> str:
    """By transformers, without a word about options."""
    chat = as_chat(conversation, Style())
    rendered, _ = render_jinja_template(
        [chat.messages], tools=chat.tools, chat_template=source, add_generation_prompt=prompt, **TOKENS, **variables
    )
    return str(rendered[0])


def text(spans: Any) -> str:
    return "".join(span.text for span in spans)


def test_a_template_that_needs_nothing_is_saved_as_it_is() -> None:
    for source in (real_templates.CHATML, real_templates.QWEN3, real_templates.LLAMA3):
        assert JinjaFormat("auto", source, TOKENS).chat_template() == source


@pytest.mark.parametrize("system", ["Be good.", "it's 'so'\\ {{ x }}\n{% y %}", ""])
@pytest.mark.parametrize("source", [real_templates.CHATML, real_templates.GEMMA, real_templates.MISTRAL])
def test_the_default_system_prompt_is_saved(source: str, system: str) -> None:
    made = JinjaFormat("auto", source, TOKENS, default_system=system)
    for row in (SINGLE, TURNS):
        assert applied(made.chat_template(), row) == text(made.render(row))
        assert applied(made.chat_template(), row, prompt=True) == text(made.prompt(row))


def test_variables_are_saved_and_can_still_be_told() -> None:
    values = {"a": [1, None, {"k'": True}], "b": 'it\'s "so" \\ é'}
    source = with_preface(SPEAKS, None, values)
    kinds, _, said = applied(source, SINGLE).partition("] ")
    assert json.loads(kinds + "]") == list(values.values())
    assert said == "user:Hi assistant:Hello. "
    assert applied(source, SINGLE, a=7).startswith("[7, ")


def test_a_model_that_was_told_not_to_think_is_asked_so_by_what_is_saved() -> None:
    made = JinjaFormat("auto", real_templates.QWEN3, TOKENS, variables={"enable_thinking": False})
    asked = applied(made.chat_template(), SINGLE, prompt=True)
    assert asked == text(made.prompt(SINGLE)) and asked.endswith("<think>\n\n</think>\n\n")
    assert not applied(made.chat_template(), SINGLE, prompt=True, enable_thinking=True).endswith("</think>\n\n")


def test_what_is_saved_says_the_date_of_training() -> None:
    dated = "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now(\"%B\") }} " + real_templates.CHATML
    made = JinjaFormat("auto", dated, TOKENS)
    assert applied(made.chat_template(), SINGLE).startswith("2024-07-26 July <|im_start|>")
    assert applied(made.chat_template(), SINGLE) == text(made.render(SINGLE))


def test_calls_without_words_are_null_where_the_template_wants_that() -> None:
    source = (
        "{% for m in messages %}{% if m['content'] is none %}({{ m['tool_calls'][0]['function'] | tojson }})"
        "{% else %}{{ m['content'] }};{% endif %}{% endfor %}"
    )
    made = JinjaFormat("auto", source, TOKENS)
    row = Conversation([*CALLS.messages[5:]])
    assert (
        applied(made.chat_template(), row)
        == text(made.render(row))
        == 'And in Rome?;({"name": "get_weather", "arguments": {"city": "Rome", "unit": "c"}}){"temp_c": 20};Warm.;'
    )
