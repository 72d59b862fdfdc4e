"""Every named template writes what its name is known for: the reference's own renderings, and some kept here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith import catalog
from tunesmith.templates.conversation import Conversation, Message
from tunesmith.templates.render import TemplateFormat
from tunesmith.templates.template import Template

NAMES = catalog.names("template")

EXPECTED = json.loads((Path(__file__).parent / "expected.json").read_text(encoding="utf-8"))


def template(name: str) -> Template:
    found = catalog.find("template", name)
    assert isinstance(found, Template)
    return found


def read(case: dict) -> Conversation:
    messages = [Message(message["role"], message["content"]) for message in case["messages"]]
    return Conversation(messages, case.get("system"), case.get("tools", ""))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_written_as_in_the_reference(name: str, shared_data: Path) -> None:
    rendered = json.loads((shared_data / "templates" / "rendered.json").read_text(encoding="utf-8"))
    if name not in rendered["templates"]:
        pytest.skip("a name that the reference does not have")
    wanted, found = rendered["templates"][name], template(name)
    for case, spans in wanted["cases"].items():
        made = TemplateFormat(found).render(read(rendered["conversations"][case]))
        assert [[span.text, span.learned] for span in made] == spans, case
    for field in ("stop_words", "default_system", "thought_words", "reasoning", "replace_eos"):
        value = {
            "stop_words": list(found.stop_words),
            "default_system": found.default_system,
            "thought_words": list(found.thought_words),
            "reasoning": found.reasoning,
            "replace_eos": found.replace_eos,
        }[field]
        assert value == wanted[field], field


def test_no_name_of_the_reference_is_missing(shared_data: Path) -> None:
    rendered = json.loads((shared_data / "templates" / "rendered.json").read_text(encoding="utf-8"))
    assert set(rendered["templates"]) <= set(NAMES)


@pytest.mark.parametrize("name", EXPECTED["templates"])
def test_main_families_are_written_as_kept_here(name: str) -> None:
    for case, wanted in EXPECTED["templates"][name].items():
        made = TemplateFormat(template(name)).render(read(EXPECTED["conversations"][case]))
        assert [[span.text, span.learned] for span in made] == wanted, case


def test_each_name_is_the_template_s_own() -> None:
    assert {name: template(name).name for name in NAMES} == {name: name for name in NAMES}


def test_templates_are_different_objects_with_the_same_fields() -> None:
    assert replace(template("llava"), name="vicuna") == template("vicuna")
