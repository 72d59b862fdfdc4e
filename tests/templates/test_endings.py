"""Where a chat template writes no end token behind answers, what ends them is found or missed, never silently."""

from dataclasses import replace
from typing import Any

import pytest
import real_templates
from conversations import CALLS, SINGLE, TURNS

from tunesmith.templates.compare import asks_otherwise
from tunesmith.templates.conversation import Conversation
from tunesmith.templates.jinja import JinjaFormat

SPECIAL = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>")
STOPS = ("<|endoftext|>", "<|user|>", "<|observation|>")


def form(**changes: Any) -> JinjaFormat:
    return JinjaFormat("auto", real_templates.NEXT_TURN_ENDS, {"eos_token": "<|endoftext|>"}, SPECIAL, **changes)


def learned(made: JinjaFormat, conversation: Conversation) -> list[str]:
    return [span.text for span in made.render(conversation) if span.learned]


def test_the_token_that_begins_the_next_turn_ends_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    made = form(stops=STOPS)
    row = replace(TURNS, system=None)
    assert learned(made, row) == ["\nHello.<|user|>", "\nNo.<|user|>"]
    assert made.stop_words == ("<|user|>", "<|observation|>")
    assert asks_otherwise(made, row) is None
    called = learned(made, replace(CALLS, messages=[*CALLS.messages[5:]], tools=""))
    assert called[0].endswith("<|observation|>") and called[1] == "\nWarm.<|user|>"
    assert capsys.readouterr().err == ""


def test_without_a_token_at_which_the_model_stops_nothing_is_added_and_that_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = form()
    assert learned(made, SINGLE) == ["\nHello."]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "writes no end token behind an answer, and the next turn begins with none at which the model stops" in said
    made.render(TURNS)
    assert capsys.readouterr().err == ""


def test_blocks_without_an_end_are_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    source = real_templates.CHATML_WITH_BLOCKS.replace(
        "+ '<|im_end|>' }}{% endgeneration %}", "}}{% endgeneration %}{{ '<|im_end|>' }}"
    )
    made = JinjaFormat("auto", source, {"eos_token": "<|im_end|>"}, ("<|im_end|>",))
    assert learned(made, SINGLE) == ["Hello."]
    assert "leaves what ends an answer outside its generation blocks" in capsys.readouterr().err
