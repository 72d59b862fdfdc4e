"""YAML and JSON files: whatever they hold is a config, or refused with file and line; never a traceback."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config.load import load
from tunesmith.config.schema import Config
from tunesmith.log import OptionError

NAMED = ("--model_name_or_path=m", "--dataset=d")
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)

YAML = [
    BOMB, "placeholders:\n  " + BOMB.replace("\n", "\n  "), "placeholders: " + "[" * 500 + "]" * 500,
    "placeholders: " + "{a: " * 300 + "1" + "}" * 300, "".join("  " * n + "a:\n" for n in range(400)),
    "seed: !!python/object/apply:os.system ['touch ran']\n", "!!python/name:os.system\nseed: 1\n", "seed: !foo 1\n",
    "%TAG ! tag:x,2000:\n---\nseed: !a 1\n", "%YAML 3.0\n---\nseed: 1\n", "%FOO\n---\nlr: x\n", "\tseed: 1\n",
    "template_args:\n\tuser: x\n", "seed: 1\nseed: 2\n", "lr: 1\nlearning_rate: 2\n", "lora-rank: 1\nlora_rank: 2\n",
    "'seed': 1\n\"seed\": 1\n", "seed: 1\n---\nlr: 1\n", "seed: 1\n...\nlr: 1\n", "- seed: 1\n", "5\n", "seed: 1\0\n",
    "seed: 1\n".encode("utf-16"), "seed: 1\n".encode("utf-32"), "run_name: é\n".encode("latin-1"),
    "run_name: 你好\n".encode("gbk"), "x" * 100_000, "x" * 10_000 + ": 1\n", "".join(f"a{n}: 1\n" for n in range(2000)),
    "<<: {seed: 1}\n", "template_args:\n  <<: [1]\n", "1: 2\n", "true: 1\n", "null: 1\n", "[a]: 1\n", "{a: 1}: 1\n", "'': 1\n",
    "seed: 2020-01-01\n", "seed: 1:30\n", "seed: 0b11\n", "seed: 1_000\n", "seed: 5.0\n", "seed: 1e3\n",
    "learning_rate: .nan\n", "learning_rate: NaN\n", "learning_rate: .inf\n", "learning_rate: 1e400\n",
    "learning_rate: " + "9" * 5000 + ".0\n", "seed: " + "9" * 5000, "do_train: yes\n", "do_train: 1\n", "do_train: 'true'\n",
    "seed: *b\n", "placeholders: &a {x: *a}\n", "seed: & 1\n", "eval_dataset: &a\n- *a\n", 'run_name: "\\x"\n',
    'run_name: "\\ud800"\n', 'run_name: "\\0"\n', "run_name: 'a\n", 'run_name: "\\U00110000"\n', "run_name: @x\n", "seed 1\n",
    "seed:1\n", " seed: 1\nlr: 1\n", "{seed: 1\n", "[\n", "seed: [1]\n", "seed: {a: 1}\n", "seed: null\n", "seed:\n",
    "seed: abc\n", "eval_dataset: [[a]]\n", "eval_dataset: [{a: 1}]\n", "seed: true\n", "run_name: 5\n",
    "train:\n  seed: 1\n", "run_name: !!binary aGk=\n", "placeholders: !!set {a, b}\n", "seed: !!int 'x'\n",
    "learning_rate: !!float 'x'\n", "do_train: !!bool 'x'\n", "seed: !!int {a: 1}\n", "placeholders: !!map x\n",
    "<<<<<<< HEAD\nseed: 1\n=======\n", "<html></html>\n", "seed = 1\n[train]\nx = 2\n", "import os\n", bytes(range(256)),
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\x1f\x8b\x08\0\0\0", "placeholders: {[a]: 1}\n", "placeholders: {1: x}\n",
    "optim_args: {momentum: .nan}\n", "*a: 1\n", "run_name: |\n  a\n  b\n",
]  # fmt: skip

JSON = [
    "", " ", "[]", "5", '"x"', '{"learning_rate": NaN}', '{"learning_rate": -Infinity}', '{"learning_rate": 1e400}',
    '{"seed": 1, "seed": 2}', '{"seed": 1,}', '// x\n{"seed": 1}', '{"seed": 1}{"seed": 2}', "{'seed': 1}", '{"seed": 1',
    '{"seed": "', '{"seed": 1}'.encode("utf-16"), '{"run_name": "é"}'.encode("latin-1"), '{"seed": 1}\0',
    '{"run_name": "\\u0000"}', '{"run_name": "\\ud800"}', '{"\\ud800": 1}', '{"placeholders": ' + "[" * 99999,
    '{"placeholders": ' + '{"a":' * 900 + "1" + "}" * 901, '{"seed": ' + "9" * 5000 + "}", '{"run_name": "a\nb"}', '{"": 1}',
    '{"seed": true}', '{"seed": 1.0}', '{"seed": "1"}', '{"seed": [1]}', '{"seed": null}', '{"train": {"seed": 1}}',
    '{"lr": 1, "learning_rate": 2}', " " * 5_000_000, '{"optim_args": {"momentum": NaN}}', bytes(range(256)),
]  # fmt: skip


def problems(name: str, content: bytes | str) -> list[str]:
    """What is wrong with a file; [] when it is a config.  Anything but a refusal fails the test."""
    Path(name).write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    try:
        assert isinstance(load([name, *NAMED], "train").config, Config)
    except OptionError as refusal:
        lines = str(refusal).splitlines()
        assert len(lines) <= 22 and all(len(line) < 700 for line in lines)
        found = [line for line in lines[:-1] if not line.startswith("and ")]
        assert all(re.match(rf"({name}:\d+|command line): ", line) for line in found), lines
        return found
    return []


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_a_wrong_yaml_file_names_file_and_line(text):
    assert any(line.startswith("x.yaml:") for line in problems("x.yaml", text))
    assert not Path("ran").exists()


@pytest.mark.parametrize("text", JSON, ids=range(len(JSON)))
def test_a_wrong_json_file_names_file_and_line(text):
    assert any(line.startswith("x.json:") for line in problems("x.json", text))


@pytest.mark.parametrize(
    "text", ["", "# x\n", "---\n", "~\n", "\ufeffseed: 1\n", "seed: 1\r\nlr: 1e-4\r\n", "{seed: 1}\n"]
)
def test_what_looks_odd_and_is_right_is_read(text):
    assert problems("x.yaml", text) == []


def test_what_is_no_file_is_said(command):
    Path("folder.yaml").mkdir()
    os.symlink("nowhere.yaml", "dead.yaml")
    os.symlink("loop.yaml", "loop.yaml")
    os.mkfifo("pipe.yaml")
    for name, said in {
        "folder.yaml": "a folder", "dead.yaml": "leads nowhere", "loop.yaml": "leads nowhere", "pipe.yaml": "a pipe",
        "nosuch.yaml": "there is no file", "x" * 300 + ".yaml": "there is no file",
    }.items():  # fmt: skip
        ended = command("train", name, *NAMED)
        assert ended.code == 2 and said in ended.err, ended


@pytest.mark.parametrize("value", ["1e-4", "-1", "nan", '"8"', "[1]", "{a: 1}", "true", "", "text", "1e400", "8.0"])
def test_yaml_and_json_are_equally_strict(value):
    from ruamel.yaml import YAML as Reader

    plain = Reader(typ="safe", pure=True).load(f"x: {value}")["x"]
    for name in (
        "seed",
        "learning_rate",
        "lora_rank",
        "do_train",
        "run_name",
        "eval_dataset",
        "optim_args",
        "template",
    ):
        yaml = problems("x.yaml", f"{name}: {value}\n")
        assert [line[6:] for line in yaml] == [line[6:] for line in problems("x.json", json.dumps({name: plain}))]


VALID = (
    "template_args: {stop_words: ['x'], user: '{{content}}'}\nlearning_rate: 1e-4\nplaceholders:\n  name: &n \"Ada\"\n"
    "  other: *n\nlora_target:\n- q_proj\n- v_proj\n# comment\nrun_name: >-\n  hi\nbf16: true\nmax_steps: -1\n"
)
VALID_JSON = json.dumps(
    {"template_args": {"user": "{{content}}"}, "lr": 1e-4, "bf16": True, "max_steps": None}, indent=1
)
PIECES = st.sampled_from(
    [":", "\t", "- ", "&", "*", "!", "!!", "{", "}", "[", "]", '"', "'", "\n", "\r", "#", "|", ">", "%", "@", "`", "?", "\0",
     "\ufeff", "\ud800", "0", "e", "_", "~", "<<: ", "---\n", "...\n", "\u0085", ", ", ""]
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), PIECES), min_size=1, max_size=4)


def changed(text: str, changes: list[tuple[int, int, str]]) -> str:
    for at, removed, piece in changes:
        text = text[: at % len(text)] + piece + text[at % len(text) + removed :] or " "
    return text


def test_the_documents_that_are_changed_are_right():
    assert problems("x.yaml", VALID) == problems("x.json", VALID_JSON) == []


def fuzz(examples: int) -> None:
    unlimited = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )

    @unlimited
    @given(CHANGES)
    def of_changes(changes: list[tuple[int, int, str]]) -> None:
        problems("x.yaml", changed(VALID, changes))
        problems("x.json", changed(VALID_JSON, changes))

    @unlimited
    @given(st.binary(max_size=200))
    def of_bytes(content: bytes) -> None:
        problems("x.yaml", content)
        problems("x.json", content)

    of_changes()
    of_bytes()


def test_no_change_to_a_document_is_a_traceback():
    fuzz(100)


@pytest.mark.reliability
def test_no_change_of_thousands_is_a_traceback():
    fuzz(4000)
