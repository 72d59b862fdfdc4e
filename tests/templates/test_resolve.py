"""What `template` and the options beside it mean."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import real_templates
from conversations import CALLS, SINGLE, SYSTEM, TURNS

from tunesmith import catalog
from tunesmith.log import OptionError
from tunesmith.templates.compare import PROBES, asks_otherwise
from tunesmith.templates.conversation import ChatFormat, Conversation, Message, Span
from tunesmith.templates.resolve import Changes, TokenizerWords, resolve

NAMED = partial(catalog.find, "template")
TOKENIZER = TokenizerWords(real_templates.CHATML, {"eos_token": "<|im_end|>"}, ["<|im_start|>", "<|im_end|>"])


def meant(template: Any, **changes: Any) -> ChatFormat:
    return resolve(template, Changes(**changes), TOKENIZER, named=NAMED)


def meant_by(source: str) -> ChatFormat:
    return resolve("auto", tokenizer=TokenizerWords(source), named=NAMED)


def text(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


def test_a_name_is_that_template() -> None:
    assert meant("llama3").name == "llama3"
    assert meant("llama3").stop_words == ("<|eot_id|>", "<|eom_id|>")


def test_auto_is_the_tokenizer_s_own() -> None:
    assert meant("auto").chat_template() == real_templates.CHATML
    several = {"default": real_templates.CHATML, "rag": "x"}
    made = resolve("auto", tokenizer=TokenizerWords(several), named=NAMED)
    assert text(made.render(SINGLE)) == text(meant_by(real_templates.CHATML).render(SINGLE))
    assert made.chat_template() == several


def test_rows_with_tools_are_written_in_the_template_for_tools() -> None:
    several = {"default": real_templates.CHATML, "tool_use": real_templates.QWEN3, "rag": "x"}
    made = resolve("auto", tokenizer=TokenizerWords(several), named=NAMED)
    for row, source in ((CALLS, real_templates.QWEN3), (SINGLE, real_templates.CHATML)):
        assert made.render(row) == meant_by(source).render(row)
        assert made.prompt(row) == meant_by(source).prompt(row)
    assert made.chat_template() == several
    with pytest.raises(OptionError, match="a chat template named default, and the tokenizer has tool_use, rag"):
        resolve("auto", tokenizer=TokenizerWords({"tool_use": "x", "rag": "x"}), named=NAMED)


def test_auto_without_a_chat_template_says_what_to_do() -> None:
    with pytest.raises(OptionError, match="choose a name such as chatml"):
        resolve("auto", named=NAMED)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.jinja").write_text(real_templates.GEMMA, encoding="utf-8")
    assert text(meant(f"jinja:{tmp_path / 'x.jinja'}").render(SINGLE)).endswith(
        "<start_of_turn>model\nHello.<end_of_turn>\n"
    )
    with pytest.raises(OptionError, match="cannot read"):
        meant(f"jinja:{tmp_path / 'y.jinja'}")


CUSTOM = {
    "prefix": "{{bos}}",
    "system": "S {{content}}\n",
    "user": "Q {{content}}\n{{answer}}A ",
    "assistant": "{{content}}{{eos}}\n",
    "stop_words": ["###"],
    "default_system": "Be good.",
}


def test_custom_is_made_of_template_args_or_a_mapping() -> None:
    by_args, by_mapping = meant("custom", template_args=CUSTOM), meant(CUSTOM)
    assert text(by_args.render(SINGLE)) == "<BOS>S Be good.\nQ Hi\nA Hello.<EOS>\n"
    assert by_args.render(TURNS) == by_mapping.render(TURNS)
    assert by_args.stop_words == ("###",)
    with pytest.raises(OptionError, match="needs user and assistant"):
        meant("custom")


def test_a_user_slot_may_hold_the_generation_prompt_without_its_mark() -> None:
    made = meant("custom", template_args={"user": "Q {{content}} A ", "assistant": "{{content}}{{eos}}"})
    assert text(made.prompt(Conversation([Message("user", "x")]))) == "Q x A "
    assert asks_otherwise(made, TURNS) is None


def test_template_args_change_a_named_template() -> None:
    made = meant(
        "qwen", template_args={"default_system": "Be good.", "tool_format": "llama3", "date_string": "1 Jan 2030"}
    )
    assert "system\nBe good.<|im_end|>" in text(made.render(SINGLE))
    assert "Today Date: 1 Jan 2030" in text(made.render(CALLS))


def test_options_change_a_named_template() -> None:
    assert "system\nBe good.<|im_end|>" in text(meant("qwen", default_system="Be good.").render(SINGLE))
    assert "Action: now" in text(meant("qwen", tool_format="default").render(CALLS))
    assert "<think>" not in text(meant("qwen3", thinking="as_data").render(SINGLE))
    assert text(meant("qwen3", enable_thinking=False).prompt(SINGLE)).endswith("<think>\n\n</think>\n\n")
    last_word = meant("qwen3", enable_thinking=True, template_args={"enable_thinking": None})
    assert "<think>" not in text(last_word.render(SINGLE))


def test_options_change_a_jinja_template() -> None:
    assert "system\nBe good.<|im_end|>" in text(meant("auto", default_system="Be good.").render(SINGLE))
    assert "Be good." not in text(meant("auto", default_system="Be good.").render(SYSTEM))
    made = resolve("auto", Changes(enable_thinking=False), TokenizerWords(real_templates.QWEN3), named=NAMED)
    assert text(made.prompt(SYSTEM)).endswith("<think>\n\n</think>\n\n")


def test_template_args_set_the_variables_that_a_jinja_template_reads() -> None:
    source = "{{ mood }} " + real_templates.CHATML
    made = resolve("auto", Changes(template_args={"mood": "calm"}), TokenizerWords(source), named=NAMED)
    assert text(made.render(SINGLE)).startswith("calm <|im_start|>")
    with pytest.raises(OptionError, match=r"unknown key 'moods'.*allowed: .*mood"):
        resolve("auto", Changes(template_args={"moods": "calm"}), TokenizerWords(source), named=NAMED)


@pytest.mark.parametrize(
    ("template", "changes", "says"),
    [
        ("qwen", {"template_args": {"uesr": "x"}}, r"unknown key 'uesr'; did you mean 'user'\? allowed: .*user"),
        ("qwen", {"template_args": {"stop_words": "x"}}, "stop_words must be a list of texts"),
        ("qwen", {"template_args": {"thought_words": ["x"]}}, "thought_words must be a list of two texts"),
        ("qwen", {"template_args": {"system_in_user": "yes"}}, "system_in_user must be true or false"),
        ("qwen", {"template_args": {"thinking": "no"}}, "thinking must be one of as_data"),
        ("qwen", {"template_args": {"user": 3}}, "user must be a text"),
        ("qwen", {"template_args": {"user": "{{contents}}"}}, r"unknown mark \{\{contents\}\}"),
        ("qwen", {"tool_format": "qwne"}, "unknown dialect 'qwne'"),
        ("auto", {"tool_format": "qwen"}, "writes tools in its own way"),
        ("qwne", {}, "did you mean"),
    ],
)
def test_what_cannot_be_meant_is_refused(template: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        meant(template, **changes)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.where)
def test_probes_are_asked_as_they_are_trained(probe: Conversation) -> None:
    for made in (
        meant("llama3"),
        meant("qwen3"),
        resolve("auto", tokenizer=TokenizerWords(real_templates.QWEN3), named=NAMED),
    ):
        assert asks_otherwise(made, probe) is None
