"""What a template writes, without a tokenizer: the reference's own renderings, other forms of messages, and errors."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tunesmith.config.load import load
from tunesmith.data.chat_format import _words
from tunesmith.log import DataError, ModelError, OptionError
from tunesmith.look.conversations import read_conversations
from tunesmith.look.inspect_command import inspect_command
from tunesmith.look.spans import written
from tunesmith.look.tokenizer_words import read_words
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.models.where import find

Write = Callable[[str, Any], Path]
TWO = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: Any) -> Path:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def spans_of(capsys: pytest.CaptureFixture[str], file: Path, *words: str, code: int = 0) -> dict[str, Any]:
    assert inspect_command(["--conversations", str(file), "--spans", *words]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_name_is_written_as_in_the_reference(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shared_data / "templates" / "rendered.json"
    reference = json.loads(file.read_text(encoding="utf-8"))["templates"]
    assert len(reference) == 121
    for name, wanted in reference.items():
        assert spans_of(capsys, file, "--template", name) == wanted["cases"], name


def test_it_needs_no_torch(tmp_path: Path, write: Write, tiny_model: Path) -> None:
    file = write("talk.json", {"a": {"messages": TWO}})
    code = "import sys; from tunesmith.cli import main; code = main(sys.argv[1:]); print(); print(code, *sys.modules)"
    for more in (["--template", "chatml"], ["--model_name_or_path", str(tiny_model)]):
        words = ["inspect", *more, "--conversations", str(file), "--spans"]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
        ended, *modules = done.stdout.splitlines()[-1].split()
        assert ended == "0" and not {"torch", "transformers"} & set(modules)


def test_a_model_s_own_template_writes_what_transformers_does(
    write: Write, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write("talk.json", {"a": {"messages": TWO}, "b": {"messages": [*TWO, *TWO], "system": "Be brief."}})
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    found = spans_of(capsys, file, "--model_name_or_path", str(tiny_model))
    for case, spans in found.items():
        system = [{"role": "system", "content": "Be brief."}] if case == "b" else []
        messages = [*system, *TWO, *(TWO if case == "b" else [])]
        assert "".join(text for text, _ in spans) == tokenizer.apply_chat_template(messages, tokenize=False)
        assert [text for text, learned in spans if learned] == ["Hello.<|im_end|>\n"] * (1 + (case == "b"))


def test_a_template_without_a_vocabulary_is_enough(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(shared_data / "tokenizers" / "deepseek-r1")
    found = spans_of(capsys, shared_data / "templates" / "rendered.json", "--model_name_or_path", folder)
    assert found["single"] == [
        ["<｜begin▁of▁sentence｜><｜User｜>What is the capital of France?<｜Assistant｜>", False],
        ["Paris.<｜end▁of▁sentence｜>", True],
    ]
    assert found["thinking"][1] == ["<think>\nTwo and two make four.\n</think>\n\n4<｜end▁of▁sentence｜>", True]


def test_a_name_and_a_model_give_the_name_s_template_in_the_model_s_words(
    write: Write, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write("talk.json", {"a": {"messages": TWO}})
    named = spans_of(capsys, file, "--template", "default")
    both = spans_of(capsys, file, "--template", "default", "--model_name_or_path", str(tiny_model))
    assert "<EOS>" in named["a"][1][0]
    assert both["a"][1][0] == named["a"][1][0].replace("<EOS>", "<|im_end|>")


def test_what_is_trained_is_what_the_options_and_messages_say(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write("talk.json", {"a": {"messages": [*TWO, *TWO]}, "b": {"messages": [TWO[0], {**TWO[1], "loss": False}]}})
    learned = {
        case: [own for _, own in spans] for case, spans in spans_of(capsys, file, "--template", "chatml").items()
    }
    assert learned == {"a": [False, True, False, True], "b": [False, False]}
    last = spans_of(capsys, file, "--template", "chatml", "--mask_history")
    assert [own for _, own in last["a"]] == [False, False, False, True]


def test_options_of_the_template_apply(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write("talk.json", {"a": {"messages": TWO}})
    assert spans_of(capsys, file, "--template", "qwen", "--default_system", "Be kind.")["a"][0][0].startswith(
        "<|im_start|>system\nBe kind.<|im_end|>"
    )


@pytest.mark.parametrize(
    "content",
    [
        {"1": {"messages": TWO}},
        {"conversations": {"1": {"messages": TWO}}},
        [{"messages": TWO}],
        {"messages": TWO},
        [TWO],
        [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}],
        {"1": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, TWO[1]]}},
    ],
)
def test_forms_of_a_file(write: Write, content: Any) -> None:
    [conversation] = read_conversations(write("talk.json", content)).values()
    assert [(message.role, message.content) for message in conversation.messages] == [
        ("user", "Hi"),
        ("assistant", "Hello."),
    ]


def test_json_lines(write: Write) -> None:
    line = json.dumps({"messages": TWO})
    assert list(read_conversations(write("talk.jsonl", f"{line}\n\n{line}\n"))) == ["1", "2"]


def test_openai_s_calls_and_results(write: Write) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"place": "here"}'}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    messages = [
        {"role": "developer", "content": "Use tools."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "seen", "tool_call_id": "1"},
        {"role": "function", "name": "look", "content": "seen again"},
    ]
    [conversation] = read_conversations(write("x.json", {"x": {"messages": messages, "tools": tools}})).values()
    assert [message.role for message in conversation.messages] == [
        "system",
        "user",
        "function",
        "observation",
        "observation",
    ]
    assert json.loads(conversation.messages[2].content) == {"name": "look", "arguments": {"place": "here"}}
    assert json.loads(conversation.tools) == tools


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1", "talk.json: line 1 column 3: Expecting ',' delimiter"),
        ("3", "talk.json: must be a JSON object"),
        ({"a": 3}, "talk.json: a: must be an object"),
        ({"a": {"messages": []}}, "talk.json: a: has no messages"),
        ({"a": {"messages": TWO, "sytem": "x"}}, "talk.json: a: unknown key 'sytem'; known are messages, "),
        ({"a": {"messages": TWO, "system": 3}}, "talk.json: a: system must be a text, got 3"),
        ({"a": {"messages": ["Hi"]}}, 'talk.json: a: message 1: must be an object with role and content, got "Hi"'),
        ({"a": {"messages": [TWO[0], {"role": "bot", "content": "x"}]}}, 'a: message 2: unknown role "bot"; known are'),
        ({"a": {"messages": [{"role": "user"}]}}, "a: message 1: null in 'content'"),
        ({"a": {"messages": [{"from": "bot", "value": "x"}]}}, "a: message 1: unknown role 'bot'"),
    ],
)
def test_what_is_no_conversation_is_said_with_its_place(write: Write, content: Any, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_conversations(write("talk.json", content))
    assert problem in str(caught.value)


def test_a_refused_conversation_leaves_the_others(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    calls = [TWO[0], {"role": "function", "content": "no JSON"}]
    file = write("talk.json", {"bad": {"messages": calls}, "good": {"messages": TWO}})
    assert inspect_command(["--template", "qwen", "--conversations", str(file), "--spans"]) == 3
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found) == ["bad", "good"] and "JSON" in found["bad"]["unsupported"] and len(found["good"]) == 2
    assert err.startswith("bad: ")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--spans"], "--spans: writes the conversations of a file"),
        (["--conversations", "talk.json", "--row", "1"], "--row: is about the data of a run"),
        (["--conversations", "nothere.json", "--template", "qwen"], "--conversations: nothere.json cannot be read"),
        (["--conversations", "talk.json"], "template: --conversations needs the name of one"),
        (["--conversations", "talk.json", "--template", "qwn"], "unknown template 'qwn'; did you mean 'qwen'?"),
    ],
)
def test_wrong_words(words: list[str], problem: str) -> None:
    with pytest.raises(OptionError) as caught:
        inspect_command(words)
    assert problem in str(caught.value)


def test_a_view_for_people(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write("talk.json", {"a": {"messages": TWO}})
    assert inspect_command(["--conversations", str(file), "--template", "chatml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a",
        "    template    <|im_start|>user↵",
        "    user        Hi",
        "    template    <|im_end|>↵<|im_start|>assistant↵",
        "  + assistant   Hello.",
        "  + template    <|im_end|>↵",
    ]


def test_words_are_those_that_transformers_reads(tiny_model: Path, shared_data: Path) -> None:
    for folder in (tiny_model, shared_data / "tokenizers" / "gpt-neox"):
        cfg = load([f"model_name_or_path={folder}"], command="chat").config.model
        theirs, ours = _words(load_tokenizer(find(cfg), cfg)), read_words(folder)
        assert ours.chat_template == theirs.chat_template and ours.tokens == theirs.tokens
        assert set(ours.special) == set(theirs.special)


@pytest.mark.parametrize("form", ["list", "files"])
def test_several_templates_by_name(write: Write, tmp_path: Path, form: str) -> None:
    config: dict[str, Any] = {"eos_token": {"content": "</s>"}}
    if form == "list":
        config["chat_template"] = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    else:
        (tmp_path / "additional_chat_templates").mkdir()
        write("chat_template.jinja", "A")
        write("additional_chat_templates/tool_use.jinja", "B")
    write("tokenizer_config.json", config)
    words = read_words(tmp_path)
    assert words.chat_template == {"default": "A", "tool_use": "B"}
    assert words.tokens == {"eos_token": "</s>", "pad_token": "</s>"}


def test_a_folder_without_a_tokenizer(tmp_path: Path, write: Write) -> None:
    with pytest.raises(ModelError, match=r"holds no tokenizer_config\.json"):
        read_words(tmp_path)
    write("tokenizer_config.json", "{")
    with pytest.raises(ModelError, match="is damaged"):
        read_words(tmp_path)


def test_cases_keep_their_order(write: Write) -> None:
    file = write("talk.json", {name: {"messages": TWO} for name in "cab"})
    assert list(written(load(["--template", "qwen"], command="spans"), file)) == ["c", "a", "b"]
