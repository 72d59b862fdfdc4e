"""A bad data file ends the command with 3, and names file, row and reason in our own words."""

import bz2
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

ROW = {"instruction": "say hi", "input": "", "output": "hello"}
GOOD = json.dumps([ROW] * 3)
HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}
DEEP = "[" * 99_999
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
LONG = "9" * 5000


def parquet(values: pyarrow.Array) -> bytes:
    """A file with these values as questions."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"instruction": values, "output": ["x"] * len(values)}), file)
    return file.getvalue()


def locked_zip() -> bytes:
    """An archive whose member says that it needs a password."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.json", GOOD)
    content = bytearray(file.getvalue())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= 1
    return bytes(content)


FAR = pyarrow.array([0, 10**15], type=pyarrow.timestamp("ms"))
NO_TEXT = pyarrow.array([b"a", b"\xff\xfe"]).view(pyarrow.string())


def talk(*turns: Any) -> str:
    return json.dumps([{"conversations": list(turns)}] * 2)


def chat(*messages: Any) -> str:
    return json.dumps([{"messages": list(messages)}] * 2)


ASKED = {"role": "user", "content": "a"}
FILES: list[tuple[str, str | bytes, str]] = [
    ("x.json", GOOD[:-10], "line 1"), ("x.json", '[{"instruction":"a', "line 1"), ("x.json", "hello", "line 1"),
    ("x.json", "", "no rows"), ("x.json", "[]", "no rows"), ("x.json", "{}", "columns"), ("x.json", "5", "row 1 is a number"),
    ("x.json", "[null]", "row 1 is null"), ("x.json", '[{"instruction":"a","output":"b"},5]', "row 2 is a number"),
    ("x.json", GOOD[:-1] + ",]", "line 1"), ("x.json", GOOD + GOOD, "more after"),
    ("x.json", json.dumps([ROW | {"output": "你好吗朋友"}], ensure_ascii=False).encode("gbk"), "gbk"),
    ("x.json", GOOD.encode("utf-16"), "utf-16"), ("x.json", GOOD.encode("utf-32"), "utf-32"),
    ("x.json", '[{"instruction":"café"}]'.encode("latin-1"), "line 1 is not UTF-8"),
    ("x.json", '[{"instruction":' + DEEP, "nested too deeply"), ("x.json", f'[{{"instruction":{LONG}}}]', "digits"),
    ("x.json", '[{"instruction":"a","instruction":"b","output":"c"}]', "'instruction' twice"),
    ("x.json", '[{"instruction":NaN,"output":"x"}]', "x.json row 1"), ("x.json", '[{"instruction":"\\ud800","output":"x"}]', "row 1"),
    ("x.json", '{"alpha":1}', "alpha"), ("x.json", gzip.compress(GOOD.encode()), "compressed with gzip"),
    ("x.jsonl", json.dumps(ROW) + "\n{bad\n", "line 2"), ("x.jsonl", json.dumps(ROW) + "\n" + json.dumps(ROW)[:-5], "line 2"),
    ("x.jsonl", '{"instruction":' + DEEP, "line 1: it is nested"), ("x.jsonl", f'{{"instruction":{LONG}}}', "digits"),
    ("x.jsonl", "\0\0\0", "x.jsonl"), ("x.jsonl", json.dumps(ROW) + "\nnull\n", "row 2 is null"),
    ("x.jsonl", GOOD, "row 1 is a list"), ("x.jsonl", json.dumps(ROW) * 2, "line 1"),
    ("x.csv", "instruction,output\na\n", "line 2 has 1 cells"), ("x.csv", 'instruction,output\n"a,b\n', "line 2"),
    ("x.csv", "instruction,output\n", "no rows"), ("x.csv", "instruction,output,output\na,b,c\n", "'output' twice"),
    ("x.csv", "instruction;output\na;b\n", "instruction;output"), ("x.csv", "hello,world\nhi,there\n", "hello, world"),
    ("x.parquet", b"PAR1xxxxPAR1", "whole parquet"), ("x.parquet", b"", "whole parquet"), ("x.arrow", b"ARROW1xx", "whole arrow"),
    ("x.json.gz", GOOD, "cannot be read"), ("x.json.gz", gzip.compress(GOOD.encode())[:-9], "cannot be read"),
    ("x.json.bz2", bz2.compress(GOOD.encode())[:-4], "cannot be read"), ("x.json.xz", GOOD, "cannot be read"),
    ("x.json.zst", GOOD, "cannot be read"), ("x.json.zip", GOOD, "cannot be read"), ("x.xlsx", b"PK\3\4", "unknown kind of file"),
    ("x.parquet", parquet(FAR), "row 2 cannot be read"), ("x.parquet", parquet(NO_TEXT), "row 2 cannot be read"),
    ("x.zip", locked_zip(), "password"), ("x.json", POINTER, "Git LFS"), ("x.csv", POINTER, "Git LFS"), ("x.parquet", POINTER, "Git LFS"),
    ("x.json", json.dumps([{"k" * 9999: 1}]), "register it"), ("x.jsonl", '{"\\u001b[31mred\\u0000":1}', "(\\x1b[31mred\\x00)"),
    ("x.txt", "hello", "plain text"), ("x.json", talk(HUMAN), "no answer at the end"), ("x.json", talk(), "list of messages"),
    ("x.json", talk(HUMAN, GPT, HUMAN), "no answer at the end"), ("x.json", talk({"from": "alien", "value": "x"}, GPT), "'alien'"),
    ("x.json", talk({"from": ["human"], "value": "x"}, GPT), "unknown role"), ("x.json", talk(HUMAN, {"from": "gpt", "value": None}), "null"),
    ("x.json", talk({"from": "human", "value": {"a": 1}}, GPT), "not a text"), ("x.json", talk([HUMAN, GPT]), "list of messages"),
    ("x.json", talk(GPT, HUMAN), "without a question"), ("x.json", talk(HUMAN, {"from": "gpt", "value": ""}), "empty answer"),
    ("x.json", talk(HUMAN, {"from": "function_call", "value": "no json"}), "JSON"),
    ("x.json", talk(HUMAN, {"from": "function_call", "value": DEEP}), "row 1"),
    ("x.json", talk(HUMAN, {"from": "function_call", "value": LONG}), "row 1"),
    ("x.json", json.dumps([{"conversations": "[{"}]), "list of messages"), ("x.json", json.dumps([{"conversations": DEEP}]), "messages"),
    ("x.json", json.dumps([{"conversations": [HUMAN, GPT], "tools": DEEP}]), "row 1"),
    ("x.json", json.dumps([{"conversations": [HUMAN, GPT], "tools": "none"}]), "tools"),
    ("x.json", json.dumps([{"conversations": [HUMAN, GPT], "tools": [1]}]), "tool"),
    ("x.json", chat(ASKED), "no answer"), ("x.json", chat(ASKED, {"role": "assistant", "tool_calls": 5}), "tool calls"),
    ("x.json", chat(ASKED, {"role": "assistant", "content": "b", "weight": -1}), "loss"),
    ("x.json", chat({"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "b"}), "not text"),
    ("x.json", json.dumps([ROW | {"output": None}]), "null in 'output'"), ("x.json", json.dumps([ROW | {"output": {}}]), "not a text"),
    ("x.json", json.dumps([ROW | {"images": ["a.png"]}]), "images, video or audio"),
    ("x.json", json.dumps([{"conversations": [HUMAN, GPT], "audios": "a.wav"}]), "images, video or audio"),
    ("x.json", json.dumps([ROW | {"history": [["a"]]}]), "pairs"), ("x.json", json.dumps([ROW | {"history": "x"}]), "history"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), FILES, ids=[f"{n}-{f[0]}" for n, f in enumerate(FILES)])
def test_a_bad_file_is_named_with_row_and_reason(name, content, said, train, tmp_path):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    ended = train(dataset=path, do_train="false", output_dir=None)
    last = ended.err.splitlines()[-1]
    assert ended.code == 3 and name in last and said in last and len(last) < 1000, ended
    assert "internal error" not in ended.err and "Traceback" not in ended.err


INFOS: list[tuple[Any, str]] = [
    ('{"talk":', "dataset_info.json:1"), ("[]", "an object"), ("", "dataset_info.json:1"), ('{"你好":1}'.encode("gbk"), "UTF-8"),
    ('{"talk":{"file_name":"talk.json"},"talk":{}}', "'talk' twice"), ('{"talk":' + DEEP, "nested too deeply"),
    ('{"talk":' + LONG + "}", "digits"), ({"talk": None}, "talk: must be an object"), ({"talk": {}}, "needs one of"),
    ({"talk": {"file_name": "no.json"}}, "no.json"), ({"talk": {"file_name": 5}}, "file_name"), ({"talk": {"file_name": "x" * 5000}}, "no file"),
    ({"talk": {"file_name": "../../etc/passwd"}}, "talk"), ({"talk": {"file_nam": "talk.json"}}, "did you mean 'file_name'"),
    ({"talk": {"file_name": "talk.json", "formatting": ["alpaca"]}}, "formatting"),
    ({"talk": {"file_name": "talk.json", "columns": {"prompt": "nothere", "response": "output"}}}, "no column 'nothere'"),
    ({"talk": {"file_name": "talk.json", "columns": {"promt": "x"}}}, "did you mean 'prompt'"),
    ({"talk": {"file_name": "talk.json", "columns": []}}, "columns"), ({"talk": {"file_name": "talk.json", "num_samples": 0}}, "num_samples"),
    ({"talk": {"file_name": "talk.json", "num_samples": 10**30}}, "num_samples"), ({"talk": {"script_url": "x"}}, "script_url"),
]  # fmt: skip


@pytest.mark.parametrize(("info", "said"), INFOS, ids=range(len(INFOS)))
def test_a_bad_dataset_info_is_named_with_its_entry(info, said, train, rows):
    text = info if isinstance(info, str | bytes) else json.dumps(info)
    (rows / "dataset_info.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    ended = train(do_train="false", output_dir=None)
    assert ended.code == 3 and said in ended.err and "internal error" not in ended.err, ended


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "no data file"),
        (lambda path: os.mkfifo(path), "a pipe"),
        (lambda path: os.symlink("nowhere.json", path), "leads nowhere"),
        (lambda path: os.symlink("talk.json", path), "leads nowhere"),
    ],
    ids=["folder", "pipe", "dead link", "link to itself"],
)
def test_what_is_no_file_is_no_data(make: Callable[[Path], None], said: str, train, rows):
    (rows / "talk.json").unlink()
    make(rows / "talk.json")
    ended = train(do_train="false", output_dir=None)
    assert ended.code == 3 and said in ended.err, ended


def test_one_row_is_enough_and_a_broken_one_among_good_ones_is_counted(train, rows):
    (rows / "talk.json").write_text(json.dumps([ROW]))
    assert train(do_train="false", output_dir=None).code == 0
    (rows / "talk.json").write_text(json.dumps([ROW, {"instruction": "a"}]))
    ended = train(do_train="false", output_dir=None)
    assert ended.code == 0 and "no column 'output': 1 (talk.json row 2)" in ended.out
    assert train(do_train="false", output_dir=None, strict="true").code == 3


@pytest.mark.parametrize("name", ["tlk", "talk#0", "talk@x", "nofile.json", "talk#99999999999999999999x"])
def test_a_wrong_name_is_the_options_mistake(name, train):
    assert "dataset: " in (ended := train(dataset=name, output_dir=None)).err and ended.code == 2
    assert "eval_dataset: " in (ended := train(eval_dataset=name, output_dir=None)).err and ended.code == 2
