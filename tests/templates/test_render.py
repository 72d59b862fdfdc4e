"""What holds for every template and every row."""

from dataclasses import replace
from functools import cache

import pytest
from conversations import CALLS, ORDINARY, THOUGHTS, TURNS, conversations
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import catalog
from tunesmith.log import DataError, OptionError
from tunesmith.templates.compare import asks_otherwise
from tunesmith.templates.conversation import Conversation, Message, Span
from tunesmith.templates.render import TemplateFormat
from tunesmith.templates.template import parse_slot

NAMES = catalog.names("template")
ANSWERS = ("assistant", "function")


@cache
def form(name: str, **changes: object) -> TemplateFormat:
    return TemplateFormat(replace(catalog.find("template", name), **changes))


def text(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), conversations())
def test_words_of_a_row_come_out_whole_and_as_data(name: str, conversation: Conversation) -> None:
    spans = form(name, thinking="as_data").render(conversation)
    said = [message.content for message in conversation.messages]
    marked = form(name).template.reasoning
    for number, content in enumerate(said):
        own = [span for span in spans if span.message == number]
        data = "".join(piece.text for span in own for piece in span.pieces if piece.kind == "data")
        if not (marked and any(word.strip() in content for word in form(name).template.thought_words)):
            assert content in data
    assert "".join(piece.text for span in spans for piece in span.pieces if piece.kind == "data").endswith(said[-1])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), conversations())
def test_the_template_s_words_do_not_depend_on_the_row_s(name: str, conversation: Conversation) -> None:
    plain = replace(
        conversation,
        messages=[replace(message, content="x") for message in conversation.messages],
        system=conversation.system and "x",
    )

    def control(row: Conversation) -> list[str]:
        spans = form(name, thinking="as_data").render(row)
        return ["".join(piece.text for piece in span.pieces if piece.kind != "data") for span in spans]

    assert [words for words in control(conversation) if words] == [words for words in control(plain) if words]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), conversations(), st.sampled_from([True, False, None]))
def test_the_model_is_asked_as_it_is_trained(name: str, conversation: Conversation, enable: bool | None) -> None:
    assert asks_otherwise(form(name, enable_thinking=enable), conversation, allow_empty_thought=False) is None


@pytest.mark.parametrize("case", ORDINARY)
@pytest.mark.parametrize("name", NAMES)
def test_ordinary_rows_are_asked_as_they_are_trained(name: str, case: str) -> None:
    for enable in (True, False, None):
        assert asks_otherwise(form(name, enable_thinking=enable), ORDINARY[case], allow_empty_thought=False) is None


@pytest.mark.parametrize("name", NAMES)
def test_only_answers_are_learned_and_their_end_is(name: str) -> None:
    for conversation in ORDINARY.values():
        spans = form(name).render(conversation)
        answers = [i for i, message in enumerate(conversation.messages) if message.role in ANSWERS]
        assert [span.message for span in spans if span.learned] == answers
        for span in spans:
            if span.learned and span.role == "assistant" and (words := form(name).stop_words):
                assert any(word in span.text for word in words) or "<EOS>" in span.text
        assert not any(span.learned for span in form(name).prompt(conversation))


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_row_begins_with_each_of_its_prompts(name: str) -> None:
    whole = text(form(name).render(CALLS))
    for end, message in enumerate(CALLS.messages):
        if message.role in ANSWERS:
            asked = Conversation(CALLS.messages[:end], CALLS.system, CALLS.tools)
            assert whole.startswith(text(form(name).prompt(asked)))


def test_an_empty_thought_is_learned_unlearned_or_absent() -> None:
    learned, masked, as_data = (form("qwen3", enable_thinking=enable).render(TURNS) for enable in (True, False, None))
    empty = "<think>\n\n</think>\n\n"
    assert [span.text.startswith(empty) for span in learned] == [False, True, False, True]
    assert [span.text.endswith(empty) for span in masked] == [True, False, True, False]
    assert empty not in text(as_data)


@pytest.mark.parametrize(
    ("thinking", "answers"),
    [
        ("as_data", ["<think>\nTwo and two.\n</think>\n\n4", "<think>\nThree and three.\n</think>\n\n6"]),
        ("strip_history", ["4", "<think>\nThree and three.\n</think>\n\n6"]),
        ("strip", ["4", "6"]),
        ("empty_masked", ["<think>\nTwo and two.\n</think>\n\n4", "<think>\nThree and three.\n</think>\n\n6"]),
    ],
)
@pytest.mark.parametrize("name", ["qwen3", "chatml", "deepseekr1"])
def test_thoughts_of_a_row_are_treated_as_it_says(name: str, thinking: str, answers: list[str]) -> None:
    by_row = form(name).render(replace(THOUGHTS, thinking=thinking))
    by_template = form(name, thinking=thinking).render(THOUGHTS)
    assert by_row == by_template
    learned = [span.text for span in by_row if span.learned]
    assert all(span.startswith(answer) for span, answer in zip(learned, answers, strict=True))


def test_empty_masked_adds_a_thought_that_is_never_learned() -> None:
    spans = form("deepseekr1", thinking="empty_masked").render(TURNS)
    assert [(span.text.endswith("<think>\n\n</think>\n\n"), span.learned) for span in spans] == [
        (True, False),
        (False, True),
        (True, False),
        (False, True),
    ]


def test_the_marks_of_a_thought_are_the_template_s_and_its_words_the_row_s() -> None:
    row = Conversation([Message("user", "<think>a</think>"), Message("assistant", "<think>\nb <think>\n</think>\n\nc")])
    asked, answer = form("qwen3").render(row)
    assert ("<think>a</think>", "data") in [(piece.text, piece.kind) for piece in asked.pieces]
    marks = [piece.text for piece in answer.pieces if piece.kind == "control"]
    assert marks == ["<think>", "</think>", "<|im_end|>\n"]


def test_a_leading_system_message_is_the_system_prompt() -> None:
    inside = Conversation([Message("system", "Be kind."), *TURNS.messages])
    assert text(form("gemma").render(inside)) == text(form("gemma").render(replace(TURNS, system="Be kind.")))
    assert [span.message for span in form("gemma").render(inside)] == [1, 2, 3, 4]


def test_an_empty_system_prompt_means_none_and_no_prompt_the_template_s() -> None:
    assert "system" not in text(form("qwen").render(replace(TURNS, system="")))
    assert "You are Qwen" in text(form("qwen").render(replace(TURNS, system=None)))


def test_results_in_a_row_are_one_turn_where_the_family_says_so() -> None:
    results = '<tool_response>\n{"temp_c": -3}\n</tool_response>\n<tool_response>\nnoon\n</tool_response><|im_end|>\n'
    assert f"<|im_start|>user\n{results}" in text(form("qwen3").render(CALLS))
    assert text(form("llama3").render(CALLS)).count("<|start_header_id|>ipython<|end_header_id|>") == 3


@pytest.mark.parametrize("content", ["not JSON", '{"arguments": {}}', '{"name": "f", "arguments": [1]}', '["f"]'])
def test_calls_that_cannot_be_read_are_refused_with_the_row(content: str) -> None:
    row = Conversation([Message("user", "u"), Message("function", content)], where="x.json row 7")
    with pytest.raises(DataError, match=r"x\.json row 7"):
        form("qwen").render(row)


def test_tools_that_cannot_be_read_are_refused_with_the_row() -> None:
    with pytest.raises(DataError, match=r"x\.json row 7: tools"):
        form("qwen").render(replace(TURNS, tools="{", where="x.json row 7"))


@pytest.mark.parametrize("slot", ["{{contents}}", "{{content}}{{content}}", "{{answer}}{{content}}"])
def test_a_slot_with_wrong_marks_is_refused(slot: str) -> None:
    with pytest.raises(OptionError, match="user"):
        parse_slot(slot, "user")
