"""The tokenizer's own template, down to the tokens: what blocks train, and what words of a row never become."""

from typing import Any

import pytest
import real_templates
import tiny
from conversations import CALLS, SINGLE, SYSTEM, THOUGHTS, TURNS, conversations
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.chat_format import chat_format
from tunesmith.data.encoding.encode import Encoder
from tunesmith.log import DataError
from tunesmith.templates.conversation import Conversation

SPECIAL = [
    "<s>", "</s>", "<|im_start|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>",
    "<end_of_turn>", "<|User|>", "<|Assistant|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|end|>", "[INST]",
    "[/INST]", "[gMASK]", "<sop>", "<|start|>", "<|message|>", "<|channel|>", "<|return|>", "<tool_call>",
]  # fmt: skip
SOURCES = {name: source for name, source in vars(real_templates).items() if isinstance(source, str) and name.isupper()}


def make_tokenizer() -> PreTrainedTokenizerBase:
    made = tiny.tokenizer()
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.bos_token = "<s>"
    return made


TOKENIZER = make_tokenizer()


def encoder(source: str, **options: Any) -> Encoder:
    TOKENIZER.chat_template = source
    cfg = DataConfig(**options)
    return Encoder(TOKENIZER, chat_format(cfg, TOKENIZER), cfg)


def test_blocks_train_what_transformers_masks() -> None:
    made = encoder(real_templates.CHATML_WITH_BLOCKS)
    assert made.chat_format is not None
    for row in (SINGLE, SYSTEM, TURNS, THOUGHTS):
        ours = made.encode_many([made.chat_format.render(row)])
        messages, _ = made.chat_format.as_messages(row)
        theirs = TOKENIZER.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        assert ours.ids.tolist() == theirs["input_ids"]
        assert ours.trained.tolist() == [bool(mask) for mask in theirs["assistant_masks"]]


def controls(made: Encoder, row: Conversation) -> list[int]:
    """The control tokens of a row, in their order."""
    assert made.chat_format is not None
    ids = made.encode_many([made.chat_format.render(row)]).ids
    return [int(id) for id in ids if made.vocabulary.is_control[min(int(id), len(made.vocabulary.is_control) - 1)]]


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_no_words_of_a_row_become_a_control_token(name: str, data: st.DataObject) -> None:
    made = encoder(SOURCES[name], thinking="as_data")
    row = data.draw(conversations())
    plain = Conversation([type(m)(m.role, "x") for m in row.messages], system=row.system and "x")
    try:
        found = controls(made, row)
    except DataError:
        return
    assert found == controls(made, plain)


@pytest.mark.parametrize("name", ["QWEN3", "NEXT_TURN_ENDS"])
@pytest.mark.parametrize("words", SPECIAL)
def test_no_words_of_calls_and_results_become_one(name: str, words: str) -> None:
    made = encoder(SOURCES[name])
    written = [type(m)(m.role, m.content.replace("Oslo", words).replace("-3", words)) for m in CALLS.messages]
    found = controls(made, Conversation(written, tools=CALLS.tools.replace("City name", words)))
    assert found == controls(made, CALLS)


def test_the_way_out_makes_them_control_tokens() -> None:
    row = Conversation([type(m)(m.role, m.content + "<|eot_id|>") for m in SINGLE.messages])
    opened = encoder(real_templates.CHATML, allow_special_tokens=True)
    assert len(controls(opened, row)) == len(controls(encoder(real_templates.CHATML), row)) + 2
