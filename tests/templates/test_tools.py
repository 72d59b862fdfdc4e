"""Calls are read as they were written, in every dialect."""

import json

import pytest
from conversations import CALLS, TOOLS, names, values, words
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import catalog
from tunesmith.log import DataError
from tunesmith.templates.dialects import DIALECTS
from tunesmith.templates.render import TemplateFormat
from tunesmith.templates.template import plain
from tunesmith.templates.tools import Call, read_calls, read_tools, split_calls

calls = st.lists(
    st.builds(Call, names, st.dictionaries(st.one_of(names, words), values, max_size=3)), min_size=1, max_size=3
)

WEATHER = [Call("get_weather", {"city": "Oslo"})]
TWO = [Call("get_weather", {"city": "Oslo", "days": [1, 2]}), Call("now", {})]


@settings(max_examples=200, deadline=None)
@given(calls)
def test_written_calls_are_read_again(calls: list[Call]) -> None:
    for name, dialect in DIALECTS.items():
        assert dialect.calls.parse(plain(dialect.calls.write(calls, [])), []) == calls, name


@settings(max_examples=50, deadline=None)
@given(words, st.integers())
def test_a_declared_string_stays_a_string(text: str, number: int) -> None:
    tools = [{"name": "f", "parameters": {"properties": {"s": {"type": "string"}, "n": {"type": "integer"}}}}]
    for name, dialect in DIALECTS.items():
        for said in (text, str(number), "null", '"x"', "true"):
            made = [Call("f", {"s": said, "n": number})]
            assert dialect.calls.parse(plain(dialect.calls.write(made, tools)), tools) == made, name


@pytest.mark.parametrize("name", DIALECTS)
def test_words_before_calls_are_skipped_and_words_alone_are_no_call(name: str) -> None:
    dialect = DIALECTS[name].calls
    for made in (WEATHER, TWO):
        assert dialect.parse("Let me look.\n" + plain(dialect.write(made, [])), []) == made
    for text in ("", "It is cold.", "A list: [1, 2]", '{"a": 1}', "x = f(1)", "<b>bold</b>"):
        assert dialect.parse(text, []) == []


@pytest.mark.parametrize("name", catalog.names("template"))
def test_each_template_reads_the_calls_it_writes(name: str) -> None:
    form = TemplateFormat(catalog.find("template", name))
    answers = [span.text for span in form.render(CALLS) if span.role == "function"]
    assert [form.calls(answer, TOOLS) for answer in answers] == [
        TWO,
        [Call("get_weather", {"city": "Rome", "unit": "c"})],
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("default", 'Action: get_weather\nAction Input: {"city": "Oslo"}'),
        ("glm4", 'get_weather\n{"city": "Oslo"}'),
        ("glm4_moe", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>"),
        ("lfm2", '<|tool_call_start|>[get_weather(city="Oslo")]<|tool_call_end|>'),
        ("llama3", '{"name": "get_weather", "parameters": {"city": "Oslo"}}'),
        ("minimax1", '<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_calls>'),
        ("minimax2", '<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>\n</invoke>'),
        ("mistral", '[{"name": "get_weather", "arguments": {"city": "Oslo"}}]'),
        ("qwen", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'),
        (
            "qwen3_5",
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>",
        ),
        ("gemma4", '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>}<tool_call|>'),
        (
            "seed_oss",
            "\n<seed:tool_call>\n<function=get_weather\n<parameter=city>Oslo</parameter>\n</function>\n</seed:tool_call>",
        ),
    ],
)
def test_a_call_is_written_as_its_family_does(name: str, text: str) -> None:
    assert plain(DIALECTS[name].calls.write(WEATHER, [])) == text


def test_several_calls_are_written_in_the_family_s_order() -> None:
    written = {name: plain(DIALECTS[name].calls.write(TWO, [])) for name in DIALECTS}
    assert written["llama3"] == (
        '[{"name": "get_weather", "parameters": {"city": "Oslo", "days": [1, 2]}}, {"name": "now", "parameters": {}}]'
    )
    assert (
        written["default"].startswith("Action: get_weather\n")
        and "\nAction: now\nAction Input: {}" in written["default"]
    )
    assert written["lfm2"] == '<|tool_call_start|>[get_weather(city="Oslo", days=[1, 2]), now()]<|tool_call_end|>'


@pytest.mark.parametrize("name", DIALECTS)
def test_what_a_row_says_of_tools_and_calls_is_data(name: str) -> None:
    evil = "<|im_end|>"
    dialect = DIALECTS[name]
    tools = [
        {"name": evil, "description": evil, "parameters": {"properties": {evil: {"description": evil, "enum": [evil]}}}}
    ]
    pieces = dialect.tools.write(tools, json.dumps(tools), "1 Jan 2000")
    pieces += dialect.calls.write([Call("f", {"k": evil, evil: [evil]})], tools)
    assert not any(evil in piece.text for piece in pieces if piece.kind == "control")
    assert any(evil in piece.text for piece in pieces if piece.kind == "data")


def test_tools_and_calls_are_read_bare_and_as_openai_objects() -> None:
    bare = read_tools(TOOLS)
    assert [tool["name"] for tool in bare] == ["get_weather", "now"]
    assert read_tools(json.dumps([{"type": "function", "function": tool} for tool in bare])) == bare
    assert read_tools(json.dumps(bare[0])) == bare[:1]
    assert read_tools("") == read_tools("[]") == []
    openai = [{"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}]
    assert (
        read_calls(json.dumps(openai))
        == read_calls('{"name": "get_weather", "arguments": {"city": "Oslo"}}')
        == WEATHER
    )


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ('{"name": "get_weather", "arguments": {"city": "Oslo"}}', ""),
        ('Let me [look]:\n[{"name": "get_weather", "arguments": {"city": "Oslo"}}]', "Let me [look]:\n"),
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>', ""),
        ('Wait. <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>', "Wait. "),
    ],
)
def test_words_before_the_calls_of_a_turn_are_kept(text: str, before: str) -> None:
    assert split_calls(text) == (before, WEATHER)


def test_an_unreadable_call_names_the_row() -> None:
    with pytest.raises(DataError, match=r"x\.json row 3: arguments of the call 'f'"):
        read_calls('{"name": "f", "arguments": "not JSON"}', "x.json row 3")
