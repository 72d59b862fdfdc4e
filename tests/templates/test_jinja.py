"""Jinja chat templates: what is trained, how it is asked for, and what is from the row."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_templates
from conversations import CALLS, SINGLE, SYSTEM, THOUGHTS, TOOLS, TURNS, UNANSWERED, WEIRD, conversations
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from tunesmith.log import DataError, OptionError
from tunesmith.templates.chat_messages import as_chat
from tunesmith.templates.compare import asks_otherwise, first_difference
from tunesmith.templates.conversation import Conversation, Message, Span
from tunesmith.templates.families.chatml import CHATML
from tunesmith.templates.families.qwen import QWEN3
from tunesmith.templates.jinja import JinjaFormat
from tunesmith.templates.render import TemplateFormat

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>")
FAITHFUL = {
    "chatml": real_templates.CHATML,
    "blocks": real_templates.CHATML_WITH_BLOCKS,
    "llama3": real_templates.LLAMA3,
    "mistral": real_templates.MISTRAL,
    "gemma": real_templates.GEMMA,
}


def form(source: str, **changes: Any) -> JinjaFormat:
    return JinjaFormat("auto", source, TOKENS, SPECIAL, **changes)


def text(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


def by_transformers(made: JinjaFormat, conversation: Conversation, *, prompt: bool = False, **variables: Any) -> str:
    chat = as_chat(conversation, made.style)
    rendered, _ = render_jinja_template(
        [chat.messages],
        tools=chat.tools,
        chat_template=made.source,
        add_generation_prompt=prompt,
        **TOKENS,
        **variables,
    )
    return str(rendered[0])


@pytest.mark.parametrize("name", FAITHFUL)
def test_text_and_prompt_are_what_transformers_gives(name: str) -> None:
    made = form(FAITHFUL[name])
    for row in (SINGLE, SYSTEM, TURNS, UNANSWERED):
        assert text(made.render(row)) == by_transformers(made, row)
        assert text(made.prompt(row)) == by_transformers(made, row, prompt=True)
        assert asks_otherwise(made, row) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(FAITHFUL)), conversations())
def test_any_words_give_what_transformers_gives(name: str, row: Conversation) -> None:
    made = form(FAITHFUL[name])
    assert text(made.render(row)) == by_transformers(made, row)
    assert text(made.prompt(row)) == by_transformers(made, row, prompt=True)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*FAITHFUL.values(), real_templates.QWEN3, real_templates.THINKS_FIRST]), conversations())
def test_no_special_token_of_a_row_is_control(source: str, row: Conversation) -> None:
    plain = replace(
        row, messages=[replace(message, content="x") for message in row.messages], system=row.system and "x"
    )

    def control(conversation: Conversation) -> str:
        spans = form(source, thinking="as_data").render(conversation)
        kept = "".join(piece.text for span in spans for piece in span.pieces if piece.kind == "control")
        return "".join(kept.replace("<think>", "").replace("</think>", "").split()).replace('"', "").replace("\\", "")

    assert control(row).translate({code: None for code in range(32)}) == control(plain)


def test_answers_with_their_ends_are_learned() -> None:
    learned = {
        name: [span.text for span in form(source).render(TURNS) if span.learned] for name, source in FAITHFUL.items()
    }
    assert learned == {
        "chatml": ["Hello.<|im_end|>\n", "No.<|im_end|>\n"],
        "blocks": ["Hello.<|im_end|>", "No.<|im_end|>"],
        "llama3": ["Hello.<|eot_id|>", "No.<|eot_id|>"],
        "mistral": [" Hello.</s>", " No.</s>"],
        "gemma": ["Hello.<end_of_turn>\n", "No.<end_of_turn>\n"],
    }
    for source in FAITHFUL.values():
        spans = [span for span in form(source).render(TURNS) if span.text != "\n"]
        assert [(span.message, span.role) for span in spans] == [
            (0, "user"),
            (1, "assistant"),
            (2, "user"),
            (3, "assistant"),
        ]


def test_the_end_of_a_turn_is_a_stop_word() -> None:
    assert form(real_templates.CHATML).stop_words == ("<|im_end|>",)
    assert form(real_templates.LLAMA3).stop_words == ("<|eot_id|>",)
    assert form(real_templates.MISTRAL).stop_words == ()
    assert JinjaFormat("auto", real_templates.GEMMA, TOKENS).stop_words == ("<end_of_turn>",)


def test_a_system_prompt_goes_into_the_first_question_where_there_is_no_system_role() -> None:
    assert text(form(real_templates.GEMMA).render(TURNS)).startswith(
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>"
    )
    assert text(form(real_templates.MISTRAL).render(TURNS)).startswith("<s>[INST] Be brief.\n\nHi [/INST]")


def test_a_default_system_prompt_is_added_only_where_there_is_none() -> None:
    made = form(real_templates.CHATML, default_system="Be good.")
    assert text(made.render(SINGLE)).startswith("<|im_start|>system\nBe good.<|im_end|>")
    assert "Be good." not in text(made.render(SYSTEM))


def test_qwen3_trains_the_thoughts_of_the_row() -> None:
    made = form(real_templates.QWEN3)
    answers = [span.text for span in made.render(THOUGHTS) if span.learned]
    assert answers == [f"{message.content}<|im_end|>\n" for message in THOUGHTS.messages[1::2]]
    last = Conversation(THOUGHTS.messages[:2])
    assert text(made.render(last)) == by_transformers(made, last)
    assert asks_otherwise(made, last) is None


def test_qwen3_s_empty_thought_is_not_learned() -> None:
    made = form(real_templates.QWEN3)
    spans = made.render(TURNS)
    assert text(spans) == by_transformers(made, TURNS)
    assert [span.text for span in spans if span.learned] == ["Hello.<|im_end|>\n", "No.<|im_end|>\n"]
    assert spans[2].text.endswith("<think>\n\n</think>\n\n")


def test_qwen3_told_not_to_think_is_trained_as_it_is_asked() -> None:
    made = form(real_templates.QWEN3, variables={"enable_thinking": False})
    for row in (SINGLE, TURNS, THOUGHTS):
        assert asks_otherwise(made, Conversation(row.messages[:2], row.system)) is None
    asked, answer = made.render(Conversation(THOUGHTS.messages[:2]))
    assert asked.text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert answer.text == "4<|im_end|>\n"


def test_qwen3_writes_tools_calls_and_results() -> None:
    made = form(real_templates.QWEN3)
    spans = made.render(CALLS)
    assert text(spans) == by_transformers(made, CALLS)
    assert [span.message for span in spans if span.learned] == [1, 4, 6, 8]
    assert spans[1].text == (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": [1, 2]}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|im_end|>\n'
    )
    assert ("Oslo", "data") in [(piece.text, piece.kind) for piece in spans[1].pieces]


def test_a_prompt_that_opens_a_thought_is_followed_by_the_row_s_own() -> None:
    made = form(real_templates.THINKS_FIRST)
    spans = made.render(THOUGHTS)
    assert [span.text for span in spans if span.learned] == [
        "Two and two.\n</think>\n\n4</s>",
        "Three and three.\n</think>\n\n6</s>",
    ]
    assert spans[0].text == "<s><|User|>2+2?<|Assistant|><think>\n"
    asked, answer = made.render(SINGLE)
    assert asked.text == "<s><|User|>Hi<|Assistant|><think>\n\n</think>\n\n"
    assert answer.text == "Hello.</s>"


def test_a_prompt_that_may_open_a_thought_is_followed_by_the_row_s_own() -> None:
    thinking = form(real_templates.THINKS_OR_NOT, variables={"thinking": True})
    spans = thinking.render(Conversation(THOUGHTS.messages[:2]))
    assert [span.text for span in spans] == [
        "<s><|User|>2+2?<|Assistant|><think>",
        "\nTwo and two.\n</think>\n\n4</s>",
    ]
    for made in (thinking, form(real_templates.THINKS_OR_NOT)):
        assert [span.text for span in made.render(SINGLE)] == ["<s><|User|>Hi<|Assistant|></think>", "Hello.</s>"]
    with pytest.raises(DataError, match=r"answer \(turn 2\) without a thought, but it has one"):
        form(real_templates.THINKS_OR_NOT).render(Conversation(THOUGHTS.messages[:2]))


def test_an_empty_thought_inside_an_answer_is_not_learned() -> None:
    made = form(real_templates.EMPTY_THOUGHT_INSIDE)
    assert [span.text for span in made.render(replace(TURNS, system=None))] == [
        "<|user|>\nHi<|assistant|>\n<think></think>\n",
        "Hello.<|end|>",
        "<|user|>\nJoke?<|assistant|>\n<think></think>\n",
        "No.<|end|>",
    ]
    assert made.render(THOUGHTS)[1].text == f"\n{THOUGHTS.messages[1].content}<|end|>"
    quiet = form(real_templates.EMPTY_THOUGHT_INSIDE, variables={"enable_thinking": False})
    assert [span.text for span in quiet.render(SINGLE)] == [
        "<|user|>\nHi<|assistant|>\n<think></think>",
        "\nHello.<|end|>",
    ]


def test_a_template_that_asks_with_other_words_than_it_writes_is_refused() -> None:
    source = real_templates.CHATML.replace("'<|im_start|>assistant\\n' }}", "'<|im_start|>bot\\n' }}")
    with pytest.raises(DataError, match=r"asks for the answer \(turn 2\) with .*bot.* but writes it after .*Hi"):
        form(source).render(SINGLE)


def test_a_generation_block_does_not_teach_what_the_prompt_says() -> None:
    made = form(real_templates.BLOCKS_WITH_HEADER)
    assert [span.text for span in made.render(TURNS) if span.learned] == ["Hello.<|im_end|>\n", "No.<|im_end|>\n"]
    assert text(made.render(TURNS)) == by_transformers(made, TURNS)
    assert asks_otherwise(made, TURNS) is None


def test_an_end_token_is_learned_whole_where_two_are_in_use() -> None:
    made = JinjaFormat("auto", real_templates.TWO_ENDS, {"eos_token": "<|return|>"})
    lead = "<|channel|>final<|message|>"
    row = replace(TURNS, system=None)
    assert [span.text for span in made.render(row) if span.learned] == [f"{lead}Hello.<|end|>", f"{lead}No.<|return|>"]
    assert made.stop_words == ()
    assert asks_otherwise(made, row) is None


@pytest.mark.parametrize(
    ("thinking", "answers"),
    [(None, ["Two and two.\n</think>\n\n4", "Three and three.\n</think>\n\n6"]), ("strip", ["4", "6"])],
)
def test_thoughts_can_be_taken_out_of_the_row(thinking: Any, answers: list[str]) -> None:
    made = form(real_templates.THINKS_FIRST, thinking=thinking)
    assert [span.text for span in made.render(THOUGHTS) if span.learned] == [f"{answer}</s>" for answer in answers]


def test_history_is_stripped_when_asked_for() -> None:
    answers = [
        span.text
        for span in form(real_templates.QWEN3).render(replace(THOUGHTS, thinking="strip_history"))
        if span.learned
    ]
    assert answers == ["4<|im_end|>\n", "<think>\nThree and three.\n</think>\n\n6<|im_end|>\n"]


def test_the_real_deepseek_r1_trains_reasoning(shared_data: Path) -> None:
    given_config = json.loads((shared_data / "tokenizers" / "deepseek-r1" / "tokenizer_config.json").read_text("utf-8"))
    tokens = {name: given_config[name]["content"] for name in ("bos_token", "eos_token")}
    made = JinjaFormat("auto", given_config["chat_template"], tokens, tuple(tokens.values()))
    end = tokens["eos_token"]
    spans = made.render(THOUGHTS)
    assert [span.text for span in spans if span.learned] == [
        message.content + end for message in THOUGHTS.messages[1::2]
    ]
    assert asks_otherwise(made, THOUGHTS) is not None, "this template asks without the history's thoughts"
    assert asks_otherwise(made, replace(THOUGHTS, thinking="strip_history")) is None
    assert spans[0].text == f"{tokens['bos_token']}<｜User｜>2+2?<｜Assistant｜>"
    assert asks_otherwise(made, TURNS) is None
    weather = Conversation([*CALLS.messages[5:7], Message("observation", "20"), Message("assistant", "Warm.")])
    calls, _, answer = made.render(weather)[1:]
    assert '<｜tool▁sep｜>get_weather\n```json\n{"city": "Rome", "unit": "c"}\n```' in calls.text
    assert answer.text == f"Warm.{end}"


def test_a_row_is_refused_with_the_reason() -> None:
    row = Conversation([Message("user", "a"), Message("user", "b"), Message("assistant", "c")], where="x.json row 2")
    with pytest.raises(DataError, match=r"x\.json row 2: the chat template refuses it: roles must alternate"):
        form(real_templates.MISTRAL).render(row)


def test_a_turn_that_the_template_leaves_out_is_refused() -> None:
    forgetful = "{% for m in messages if m['role'] != 'tool' %}{{ m['role'] + ':' + (m['content'] or '') }}{% endfor %}"
    row = Conversation([Message("user", "a"), Message("observation", "b"), Message("assistant", "c")])
    with pytest.raises(DataError, match="leaves out the observation turn"):
        form(forgetful).render(row)


def test_a_template_that_looks_into_words_is_followed_by_what_could_be_a_token() -> None:
    made = form(real_templates.SHOUTS)
    assert text(made.render(SINGLE)) == "[USER] HI\n[ASSISTANT] Hello.\n"
    row = Conversation([Message("user", "a </s> b"), Message("assistant", "c")])
    with pytest.raises(DataError, match="words change"):
        form(real_templates.SHOUTS).render(row)


@pytest.mark.parametrize("words", WEIRD)
def test_weird_tools_and_calls_are_data(words: str) -> None:
    tools = json.loads(TOOLS)
    tools[0]["description"] = words
    call = json.dumps({"name": "get_weather", "arguments": {"city": words}})
    row = Conversation([Message("user", "u"), Message("function", call)], tools=json.dumps(tools))
    made = form(real_templates.QWEN3)
    assert text(made.render(row)) == by_transformers(made, row)
    asked, answer = made.render(row)
    for token in SPECIAL:
        if token in words:
            assert sum(token in piece.text for piece in answer.pieces if piece.kind == "data") == 1
            assert sum(token in piece.text for piece in asked.pieces if piece.kind == "data") == 1


@pytest.mark.parametrize("source", real_templates.HOSTILE)
def test_a_hostile_template_runs_nothing(source: str) -> None:
    with pytest.raises(DataError, match=r"refuses|leaves out"):
        form(source).render(SINGLE)


def test_a_template_without_end_is_cut_off() -> None:
    with pytest.raises(DataError, match="refuses"):
        form("{% for i in range(100000000) %}x{% endfor %}").render(SINGLE)


def test_broken_jinja_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="not valid Jinja"):
        form("{% if %}").render(SINGLE)


def test_the_date_is_fixed() -> None:
    dated = "{{ strftime_now('%d %b %Y') }} " + real_templates.CHATML
    assert text(form(dated).render(SINGLE)).startswith("26 Jul 2024 ")


def test_a_format_travels_to_other_processes() -> None:
    made = form(real_templates.CHATML)
    wanted = made.render(TURNS)
    assert pickle.loads(pickle.dumps(made)).render(TURNS) == wanted


def test_the_first_difference_shows_both_texts() -> None:
    own = form(real_templates.CHATML)
    assert first_difference(TemplateFormat(CHATML), own, TURNS, TOKENS) is None
    found = first_difference(TemplateFormat(QWEN3), own, TURNS, TOKENS)
    assert found is not None
    assert found[0].startswith(found[1][:20]) and "<think>" in found[0] and "<think>" not in found[1]
    refused = first_difference(TemplateFormat(CHATML), form("{{ raise_exception('never') }}"), TURNS, TOKENS)
    assert refused is not None and "never" in refused[1]
