"""Any wrong flag or value is refused before anything is loaded or written: exit 2, few lines, the option is named."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.config import compat
from tunesmith.config.checks import MAY_BE_EMPTY, OF_SEVERAL_LINES, REGULAR_EXPRESSIONS
from tunesmith.config.schema import fields
from tunesmith.config.shapes import Shape, shape_of

START = ("train", "--dataset", "d", "--model_name_or_path", "m")
NAMES = [name for name in fields() if name not in ("dataset", "model_name_or_path", "debug")]
NO_NUMBERS = ("nan", "inf", "-inf", ".nan", "1e400", "-1e400", "abc", "", " ", "[]", "{}", "[1]", '{"a": 1}', "True", "on",
              "1,5", "1_000", "0x10", "１", "1e", "--", "9" * 5000, str(10**30), str(-(10**30)))  # fmt: skip
NO_TEXTS = ("", "  ", "a\0b", "\ud800", "\udcff", "a\x1bb", "a\u2028b")
DASHES = "‐‑‒–—―−－﹣﹘⸺"


def wrong_values(name: str) -> Iterator[str]:
    """Values outside what the option's declaration allows."""
    shape = shape_of(name)
    if shape.item:
        yield "a\0b"
        if name not in REGULAR_EXPRESSIONS:
            yield from ("a,,b", ",", "[1, {}],")
        if shape.item.choices or float in shape.item.scalars:
            yield from ("nosuch", "nan", '["a", "a"]')
    elif shape.mapping and str not in shape.scalars:
        yield from ("x", "5", "[1]", '{"a": 1e400}', '{"a": NaN}', '{"a": "\\ud800"}', '{"a": 1, "a": 2}', "{", "=x",
                    '{"a":' * 60 + "1" + "}" * 60)  # fmt: skip
    elif str in shape.scalars:
        yield from (one for one in NO_TEXTS if _is_wrong_text(name, one))
        if name in compat.PATHS:
            yield from ("x" * 300, "x/" * 3000, "~nosuchuser/x")
    elif {int, float} & shape.scalars:
        yield from (one for one in NO_NUMBERS if not (bool in shape.scalars and one in ("True", "on")))
        yield from _beyond(shape)
    else:
        yield from ("nosuch", "2", "maybe", "on", "nan", "", "[]", "１", "None ")


def _is_wrong_text(name: str, text: str) -> bool:
    if name in MAY_BE_EMPTY and not text.strip():
        return False
    return not (name in OF_SEVERAL_LINES and text in ("a\x1bb", "a\u2028b"))


def _beyond(shape: Shape) -> Iterator[str]:
    step = 1 if int in shape.scalars else 1e-6
    beyond = {"ge": lambda n: n - step, "gt": lambda n: n, "le": lambda n: n * 2, "lt": lambda n: n}
    yield from (str(beyond[kind](limit)) for kind, limit in shape.bounds.items())
    if int in shape.scalars:
        yield from ("0.5", "1.0", "1e3")


@pytest.mark.parametrize("name", NAMES)
def test_a_value_outside_its_range_is_refused_by_name(name, judged):
    for value in wrong_values(name):
        ended = judged(*START, f"--{name}={value}")
        lines = ended.err.splitlines()
        assert ended.code == 2, (value[:60], ended)
        assert len(lines) <= 3 and name in lines[0], (value[:60], lines)
        assert "Traceback" not in ended.err and len(lines[0]) < 900
    assert not list(Path().iterdir()), "something was written"


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_forgives_no_slip(name, judged):
    value, switch = right_value(name), bool in shape_of(name).scalars
    slips = [(f"-{name}", value), (f"---{name}", value), (f"--{name}", "=", value), (f"--{name}", f"={value}"),
             (f"--{name}={value}", f"--{name}={value}"), (f"--{name}\u00a0{value}",), (f"--{name}:{value}",),
             (f"{name}:", value), ("--", name, value), (f"--{name}\u200b", value), (f"--{name} ", value)]  # fmt: skip
    slips += [(f"{dash}{name}", value) for dash in DASHES] + [(f"{dash}{dash}{name}={value}",) for dash in DASHES]
    slips += [] if switch else [(f"--{name}",), (f"--{name}", "--seed" if name != "seed" else "--lora_rank", "1")]
    for words in slips:
        ended = judged(*START, *words)
        assert ended.code == 2 and name in ended.err, (words, ended)
        assert len(ended.err.splitlines()) <= 4, (words, ended)


@pytest.mark.parametrize("name", [name for name in NAMES if len(name) > 6])
def test_a_misspelled_name_is_told_with_the_nearest(name, judged):
    for wrong in (name[:-1] + "q", name[1:], name[:3] + name[4:], name[:2] + name[3] + name[2] + name[4:]):
        if wrong.replace("-", "_") not in (*fields(), *compat.CANONICAL, *compat.SWITCHES, name):
            ended = judged(*START, f"--{wrong}", right_value(name))
            assert ended.code == 2 and f"unknown option '--{wrong}'; did you mean '--" in ended.err, (wrong, ended)


@pytest.mark.parametrize(
    "word",
    ["--=5", "=5", "--", "-", "---", "—", "–", "=", "==", "", "  ", "\u200b", "--1", "stray", "1=2", "lora_rank"],
)
@pytest.mark.parametrize("after", [(), ("--dataset", "d")], ids=["alone", "after a list"])
def test_a_stray_word_is_refused(word, after, judged):
    if after and word not in ("--=5", "=5", "--", "-", "---", "=", "==", "--1"):
        pytest.skip("a list takes it, and it is no dataset's name")
    assert judged("train", "--model_name_or_path", "m", *(after or ("--dataset=d",)), word).code == 2


def test_one_option_under_two_names_is_refused(judged):
    for ours, others in compat.ALIASES.items():
        if ours in NAMES and {int, float} & shape_of(ours).scalars:
            Path("x.yaml").write_text(f"{ours}: 1\n{others[0]}: 2\n")
            ended = judged(*START, "x.yaml")
            assert ended.code == 2 and "x.yaml:2: " in ended.err, (ours, ended)


@pytest.mark.parametrize("words", [["--cutoff_len", "0"], ["–cutoff_len", "5"], ["--learning_rate=nan"], ["nosuch=1"]])
def test_a_process_refuses_without_torch_and_without_a_trace(words, tmp_path):
    code = "import sys; from tunesmith.cli import main; c = main(sys.argv[1:]); print(c, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *START, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["2", "False"] and len(done.stderr.splitlines()) <= 3
    assert not os.listdir(tmp_path)


def right_value(name: str) -> str:
    shape = shape_of(name)
    choices = (shape.item or shape).choices
    if choices:
        return str(choices[0])
    if shape.mapping and str not in shape.scalars:
        return json.dumps({"a": 1})
    scalars = (shape.item or shape).scalars
    return "true" if bool in scalars else "1" if int in scalars else "0.5" if float in scalars else "x"


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["x", "-1", "1.5", "\u0661"])
def test_a_launchers_variable_that_is_no_number_is_named(command, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    ended = command("train", "model_name_or_path=m", "dataset=d", "template=qwen", "output_dir=o", "stage=sft")
    assert ended.code == 2 and f"{name}: must be a whole number" in ended.err


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK: 1 is none of 1 processes"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": ""}, "MASTER_ADDR: not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": ""}, "MASTER_PORT: not set"),
    ],
)
def test_a_launchers_variables_that_do_not_go_together_are_named(command, monkeypatch, place, said):
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    ended = command("train", "model_name_or_path=m", "dataset=d", "template=qwen", "output_dir=o", "stage=sft")
    assert ended.code == 2 and said in ended.err, ended


def test_a_very_long_word_leaves_room_for_what_is_allowed(judged):
    ended = judged("train", "model_name_or_path=m", "dataset=d", f"optim={'a' * 5000}", "output_dir=o")
    assert ended.code == 2 and "allowed: " in ended.err and len(ended.err) < 500
