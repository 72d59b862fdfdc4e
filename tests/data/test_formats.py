"""Rows of every format become the same conversations, and a row that cannot says why."""

from dataclasses import replace
from typing import Any

import pytest

from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader, Unusable
from tunesmith.data.reading.sources import OPENAI_TAGS, Columns, Shape, Tags
from tunesmith.templates.conversation import Conversation

ALPACA = Shape("alpaca", Columns(history="history", system="system", tools="tools"))
SHAREGPT = Shape("sharegpt", Columns(system="system", tools="tools"))
OPENAI = Shape("openai", Columns(messages="messages", tools="tools"), OPENAI_TAGS)
TEXT = Shape("text", Columns(prompt="text"))


def read(shape: Shape, values: dict[str, Any], **placeholders: str) -> Conversation:
    return Reader(shape, placeholders).conversation(Row(values, "rows.json", 12))


def turns(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def sharegpt(*messages: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": text} for role, text in messages], **more}


def openai(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


USER = {"role": "user", "content": "Weather?"}
CALL = {"type": "function", "id": "1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def test_alpaca_joins_prompt_and_query_and_puts_history_first() -> None:
    row = {
        "instruction": "Translate.", "input": "Hund", "output": "dog", "system": "Be brief.",
        "history": [["Hi", "Hello"], ["Who?", "Me"]],
    }  # fmt: skip
    conversation = read(ALPACA, row)
    assert turns(conversation) == [
        ("user", "Hi"), ("assistant", "Hello"), ("user", "Who?"), ("assistant", "Me"),
        ("user", "Translate.\nHund"), ("assistant", "dog"),
    ]  # fmt: skip
    assert (conversation.system, conversation.tools, conversation.where) == ("Be brief.", "", "rows.json row 12")


@pytest.mark.parametrize("query", [{}, {"input": None}, {"input": ""}])
def test_alpaca_may_lack_a_query(query: dict[str, Any]) -> None:
    assert turns(read(ALPACA, {"instruction": "a", "output": "b", **query})) == [("user", "a"), ("assistant", "b")]


def test_alpaca_may_have_only_a_query_and_answers_that_are_numbers() -> None:
    assert turns(read(ALPACA, {"instruction": None, "input": "2+3?", "output": 5}))[1] == ("assistant", "5")


def test_lists_in_the_cells_of_a_csv_file_are_read() -> None:
    row = {"instruction": "a", "input": "", "output": "b", "history": '[["x", "y"]]', "system": "", "tools": ""}
    conversation = read(ALPACA, row)
    assert turns(conversation)[:2] == [("user", "x"), ("assistant", "y")] and conversation.system is None


def test_sharegpt_maps_tags_to_roles_and_takes_the_system_message_or_column() -> None:
    row = sharegpt(
        ("system", "Be kind."), ("human", "Weather?"), ("function_call", "{}"), ("observation", "-3"), ("gpt", "Cold."),
        tools=[{"name": "weather"}], system="not this",
    )  # fmt: skip
    conversation = read(SHAREGPT, row)
    assert turns(conversation) == [
        ("user", "Weather?"), ("function", "{}"), ("observation", "-3"), ("assistant", "Cold."),
    ]  # fmt: skip
    assert (conversation.system, conversation.tools) == ("Be kind.", '[{"name": "weather"}]')
    assert read(SHAREGPT, sharegpt(("human", "a"), ("gpt", "b"), system="column")).system == "column"


def test_sharegpt_may_use_other_tags() -> None:
    shape = Shape("sharegpt", Columns(messages="talk"), Tags("who", "says", "Q", "A"))
    row = {"talk": [{"who": "Q", "says": "a"}, {"who": "A", "says": "b"}]}
    assert turns(read(shape, row)) == [("user", "a"), ("assistant", "b")]


def test_openai_messages_carry_calls_parallel_results_and_developers() -> None:
    row = openai(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Wea"}, {"type": "text", "text": "ther?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "-3"},
        {"role": "tool", "tool_call_id": "2", "content": "-4"},
        {"role": "assistant", "content": "Cold."},
        tools=[{"type": "function", "function": {"name": "weather"}}],
    )
    conversation = read(OPENAI, row)
    call = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    assert turns(conversation) == [
        ("user", "Weather?"), ("function", f"[{call}, {call}]"), ("observation", "-3"), ("observation", "-4"),
        ("assistant", "Cold."),
    ]  # fmt: skip
    assert conversation.system == "Be brief." and '"name": "weather"' in conversation.tools


def test_openai_thoughts_and_words_stand_before_the_call() -> None:
    call = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    thinking = {"role": "assistant", "reasoning_content": "Hm.", "content": None, "tool_calls": [CALL]}
    assert turns(read(OPENAI, openai(USER, thinking)))[1] == ("function", f"<think>\nHm.\n</think>\n\n{call}")
    talking = {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]}
    assert turns(read(OPENAI, openai(USER, talking)))[1] == ("function", f"Let me see.\n{call}")
    answer = {"role": "assistant", "reasoning_content": "Hm.", "content": "Cold."}
    assert turns(read(OPENAI, openai(USER, answer)))[1] == ("assistant", "<think>\nHm.\n</think>\n\nCold.")


@pytest.mark.parametrize(("key", "value", "loss"), [("loss", False, False), ("loss", 1, True), ("weight", 0.0, False),
     ("loss", 0.5, 0.5), ("weight", 2, 2.0)],
)  # fmt: skip
def test_a_message_says_how_much_it_is_trained(key: str, value: Any, loss: float) -> None:
    conversation = read(OPENAI, openai(USER, {"role": "assistant", "content": "a", key: value}))
    assert [message.loss for message in conversation.messages] == [None, loss]
    assert type(conversation.messages[1].loss) is type(loss)


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), 1e39, "0.5", [1]])
def test_a_loss_that_weighs_nothing_known_is_said(value: Any) -> None:
    with pytest.raises(Unusable, match="a loss that is neither true nor false nor a number from 0 on"):
        read(OPENAI, openai(USER, {"role": "assistant", "content": "a", "loss": value}))


@pytest.mark.parametrize(
    ("shape", "row", "reason"),
    [
        (ALPACA, {"instruction": "a", "output": None}, "null in 'output'"),
        (ALPACA, {"instruction": "a", "output": " \n"}, "empty answer"),
        (ALPACA, {"instruction": "a", "output": "\ud83d"}, "half a character (a lone surrogate)"),
        (ALPACA, {"instruction": "", "input": "", "output": "b"}, "empty question"),
        (ALPACA, {"instruction": "a"}, "no column 'output'"),
        (ALPACA, {"output": "a"}, "no column 'instruction'"),
        (ALPACA, {"instruction": ["a"], "output": "b"}, "'instruction' is not a text"),
        (ALPACA, {"instruction": "a", "output": True}, "'output' is not a text"),
        (ALPACA, {"instruction": "a", "output": "b", "history": [["x"]]}, "'history' is not a list of pairs"),
        (ALPACA, {"instruction": "a", "output": "b", "history": [["x", None]]}, "null in 'history'"),
        (ALPACA, {"instruction": "a", "output": "b", "history": "[broken"}, "'history' is not JSON"),
        (Shape("alpaca", Columns("text", None, None)), {"text": "a"}, "no answer at the end"),
        (SHAREGPT, {"conversations": None}, "null in 'conversations'"),
        (SHAREGPT, {"messages": []}, "no column 'conversations'"),
        (SHAREGPT, {"conversations": []}, "no messages"),
        (SHAREGPT, {"conversations": ["a"]}, "'conversations' is not a list of messages"),
        (SHAREGPT, {"conversations": {"from": "human"}}, "'conversations' is not a list"),
        (SHAREGPT, {"conversations": [{"from": "human"}]}, "a message without 'from' or 'value'"),
        (SHAREGPT, sharegpt(("human", "a")), "no answer at the end"),
        (SHAREGPT, sharegpt(("gpt", "a")), "an answer without a question before it"),
        (SHAREGPT, sharegpt(("human", "a"), ("human", "b"), ("gpt", "c")), "two questions without an answer between them"),
        (SHAREGPT, sharegpt(("human", "a"), ("gpt", "b"), ("gpt", "c")), "an answer without a question before it"),
        (SHAREGPT, sharegpt(("human", "a"), ("gpt", "b"), ("system", "c")), "a system message after the first turn"),
        (SHAREGPT, sharegpt(("human", "a"), ("bot", "b")), "unknown role 'bot'; known are human, gpt, observation, function_call, system"),
        (SHAREGPT, sharegpt(("human", "a"), ("gpt", "")), "empty answer"),
        (OPENAI, openai(USER, {"role": "assistant", "content": None}), "null in 'content'"),
        (OPENAI, openai(USER, {"role": "assistant", "tool_calls": [{"function": {}}]}), "a tool call without a name"),
        (
            OPENAI,
            openai(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
            "a tool call whose arguments are not JSON",
        ),
        (
            OPENAI,
            openai({"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "a"}),
            "a message with parts that are not text",
        ),
        (OPENAI, openai(USER, {"role": "assistant", "content": "a", "loss": -0.5}), "a loss that is neither true nor false nor a number from 0 on"),
        (TEXT, {"text": "a"}, "plain text, which only the stage pt trains on"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_conversation_says_why(shape: Shape, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable) as error:
        read(shape, row)
    assert str(error.value) == reason


@pytest.mark.parametrize(
    ("shape", "row", "text"),
    [
        (TEXT, {"text": " eins\n"}, " eins\n"),
        (Shape("alpaca", Columns("text", None, None)), {"text": "zwei"}, "zwei"),
        (ALPACA, {"instruction": "a", "input": "b", "output": "c"}, "a\nb\nc"),
        (ALPACA, {"instruction": "a", "input": "", "output": "c"}, "a\nc"),
        (SHAREGPT, sharegpt(("system", "s"), ("human", "a"), ("gpt", "b")), "s\na\nb"),
    ],
)
def test_plain_text_is_all_that_a_row_says(shape: Shape, row: dict[str, Any], text: str) -> None:
    assert Reader(shape).text(Row(row, "rows.json", 1)) == text


@pytest.mark.parametrize(
    ("row", "reason"),
    [({"text": None}, "null in 'text'"), ({"txt": "a"}, "no column 'text'"), ({"text": " \n"}, "empty text")],
)
def test_a_row_without_text_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        Reader(TEXT).text(Row(row, "rows.json", 1))


def test_placeholders_are_filled_where_a_value_is_given_and_nowhere_else() -> None:
    reader = Reader(ALPACA, {"name": "Ada", "version": 3})
    row = {
        "instruction": "{{name}}? {{content}}", "output": "I am {{name}} {{version}} by {{author}}.", "system": "{{name}}",
    }  # fmt: skip
    conversation = reader.conversation(Row(row, "rows.json", 1))
    assert turns(conversation) == [("user", "Ada? {{content}}"), ("assistant", "I am Ada 3 by {{author}}.")]
    assert conversation.system == "Ada"
    assert reader.unfilled == {"author"}


PAIRS = Shape("sharegpt", Columns(chosen="chosen", rejected="rejected"), ranking=True)
ALPACA_PAIRS = Shape("alpaca", Columns("prompt", None, None, chosen="chosen", rejected="rejected"), ranking=True)


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        (ALPACA_PAIRS, {"prompt": "q", "chosen": "good", "rejected": "bad"}),
        (PAIRS, sharegpt(("human", "q"), chosen="good", rejected="bad")),
        (
            PAIRS,
            sharegpt(("human", "q"), chosen={"from": "gpt", "value": "good"}, rejected={"from": "gpt", "value": "bad"}),
        ),
        (
            Shape("openai", Columns(messages="messages", chosen="chosen", rejected="rejected"), OPENAI_TAGS, True),
            openai({"role": "user", "content": "q"}, chosen=[{"role": "assistant", "content": "good"}], rejected="bad"),
        ),
        *(
            (
                ALPACA_PAIRS,
                {
                    **asked,
                    "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}],
                    "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "bad"}],
                },
            )
            for asked in ({}, {"prompt": "q"})
        ),
    ],
)
def test_preference_pairs_of_every_shape_share_their_prompt(shape: Shape, row: dict[str, Any]) -> None:
    chosen, rejected = Reader(shape).pair(Row(row, "rows.json", 1))
    assert turns(chosen) == [("user", "q"), ("assistant", "good")]
    assert turns(rejected) == [("user", "q"), ("assistant", "bad")]
    assert [message.loss for message in chosen.messages] == [False, None]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (sharegpt(("human", "q"), chosen="good", rejected=None), "null in 'rejected'"),
        (sharegpt(("human", "q"), chosen="good"), "no column 'rejected'"),
        (sharegpt(("human", "q"), chosen="good", rejected=" "), "empty answer"),
        (sharegpt(("human", "q"), chosen="good", rejected=[]), "'rejected' is neither a text nor messages"),
        (sharegpt(("human", "q"), ("gpt", "a"), chosen="b", rejected="c"), "an answer without a question before it"),
    ],
)
def test_a_pair_that_is_none_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        Reader(PAIRS).pair(Row(row, "rows.json", 1))


def test_judged_rows_train_their_last_answer_and_carry_the_label() -> None:
    shape = Shape("sharegpt", Columns(kto_tag="label"))
    row = sharegpt(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"), label=False)
    conversation, desirable = Reader(shape).judged(Row(row, "rows.json", 1))
    assert [message.loss for message in conversation.messages] == [False, False, False, None] and desirable is False
    with pytest.raises(Unusable, match="'label' is neither true nor false"):
        Reader(shape).judged(Row({**row, "label": "yes"}, "rows.json", 1))


def test_what_happens_to_thoughts_is_the_row_s_word_then_the_dataset_s() -> None:
    row = openai({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    shape = Shape("openai", Columns(messages="messages"), OPENAI_TAGS, thinking="strip")
    assert read(shape, row).thinking == "strip"
    assert read(shape, row | {"thinking": "as_data"}).thinking == "as_data"
    assert read(shape, row | {"thinking": "Let me see: strip it?"}).thinking == "strip"
    named = replace(shape, columns=replace(shape.columns, thinking="policy"))
    assert read(named, row | {"policy": "empty_masked", "thinking": "as_data"}).thinking == "empty_masked"
    with pytest.raises(Unusable, match="'policy' is none of as_data, strip_history, empty_masked, strip"):
        read(named, row | {"policy": "stripp"})
