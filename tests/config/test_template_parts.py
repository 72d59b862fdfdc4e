"""A template declared by its parts: read from YAML, JSON and the command line, kept in config.yaml, and refused with its place."""

from pathlib import Path

import pytest

from tunesmith.config.load import load

PARTS = {"user": "Q {{content}}\n{{answer}}A ", "assistant": "{{content}}{{eos}}\n", "stop_words": ["###"]}
YAML = 'seed: 1\ntemplate:\n  user: "Q {{content}}\\n{{answer}}A "\n  assistant: "{{content}}{{eos}}\\n"\n  stop_words: ["###"]\n'
JSON = '{"user": "Q {{content}}\\n{{answer}}A ", "assistant": "{{content}}{{eos}}\\n", "stop_words": ["###"]}'


@pytest.mark.parametrize(
    ("yaml", "words"), [(YAML, []), ("seed: 1\n", ["--template", JSON]), (f"template: '{JSON}'\n", [])]
)
def test_it_means_the_same_in_every_way_of_writing(loaded, yaml, words):
    assert loaded(*words, yaml=yaml).config.data.template == PARTS


def test_names_stay_names(loaded):
    assert loaded("--template", "qwen3").config.data.template == "qwen3"
    assert loaded(yaml="template: chatml\n").config.data.template == "chatml"


def test_what_is_wrong_is_told_with_its_line(refused):
    assert refused(yaml="seed: 1\ntemplate:\n  uesr: x\n  assistant: '{{contnet}}'\n  stop_words: x\n") == [
        "x.yaml:2: template: needs user",
        "x.yaml:2: template: unknown key 'uesr'; did you mean 'user'? allowed: name, user, assistant, system, "
        "observation, observation_separator, function, prefix, default_system, system_in_user, tool_format, date_string, "
        "stop_words, replace_eos, thought_words, empty_thought, reasoning, enable_thinking, thinking",
        "x.yaml:2: template: assistant: unknown mark {{contnet}}; a slot may hold {{content}}, {{bos}}, {{eos}}, "
        "{{answer}}",
        "x.yaml:2: template: stop_words must be a list of texts, got 'x'",
    ]
    [told] = refused("--template", '{"user": "a", "assistant": "b", "tool_format": "qwne"}')
    assert told.startswith("command line: --template: tool_format: unknown dialect 'qwne'; allowed: default, ")


def test_arguments_beside_it_fill_what_it_lacks(loaded):
    yaml = "template:\n  user: '{{content}}'\ntemplate_args:\n  assistant: '{{content}}{{eos}}'\n"
    assert loaded(yaml=yaml).config.data.template_args == {"assistant": "{{content}}{{eos}}"}


def test_it_can_be_written_down_and_read_again(loaded, tmp_path: Path):
    from ruamel.yaml import YAML as Writer

    with (tmp_path / "again.yaml").open("w", encoding="utf-8") as file:
        Writer().dump({"template": loaded(yaml=YAML).config.data.template}, file)
    assert load([str(tmp_path / "again.yaml")], command="spans").config.data.template == PARTS
