"""Rows come out of every kind of file, and what is wrong with a file is told with its place."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.reading import files
from tunesmith.data.reading.files import Meter, read_rows
from tunesmith.log import DataError

ROWS = [{"a": "eins", "b": "zwei\nZeilen"}, {"a": "你好", "b": 'mit "Anführung", ja'}, {"a": "  drei ", "b": ""}]
Write = Callable[[str, Any], Path]


def values(path: Path) -> list[dict[str, Any]]:
    return [row.values for row in read_rows(str(path))]


def as_bytes(kind: str) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    if kind == "parquet":
        pyarrow.parquet.write_table(table, buffer)
    elif kind == "arrow":
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
    elif kind == "arrow stream":
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table)
    elif kind == "json":
        buffer.write(json.dumps(ROWS, indent=2).encode())
    elif kind == "jsonl":
        buffer.write("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode())
    else:
        mark = {"csv": ",", "tsv": "\t"}[kind]
        cells = [["a", "b"], *([row["a"], row["b"]] for row in ROWS)]
        quoted = (mark.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells)
        buffer.write("\r\n".join(quoted).encode())
    return buffer.getvalue()


def test_an_arrow_stream_that_was_cut_between_two_batches_is_told(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = as_bytes("arrow stream")
    assert values(write("whole.arrow", whole)) == ROWS
    assert not capsys.readouterr().err
    assert values(write("cut.arrow", whole[:-8])) == ROWS
    assert (
        f"ends without the mark that an arrow stream ends with; {len(ROWS)} rows were read" in capsys.readouterr().err
    )


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "parquet", "arrow", "arrow stream"])
def test_every_kind_of_file_gives_the_same_rows(kind: str, write: Write) -> None:
    path = write(f"rows.{kind.split()[0]}", as_bytes(kind))
    rows = list(read_rows(str(path)))
    assert [row.values for row in rows] == ROWS
    assert [row.where for row in rows] == [f"{path.name} row {number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "arrow"])
@pytest.mark.parametrize("packed", ["gz", "bz2", "xz", "zst"])
def test_compressed_files_give_the_same_rows(kind: str, packed: str, write: Write) -> None:
    pack = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": lambda content: pa.compress(content, "zstd", asbytes=True),
    }[packed]
    assert values(write(f"rows.{kind}.{packed}", pack(as_bytes(kind)))) == ROWS


def test_every_data_file_in_a_zip_archive_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("b.json", as_bytes("json"))
        archive.writestr("a.jsonl", '{"a": 0}')
        archive.writestr("readme.md", "nothing")
    rows = list(read_rows(str(tmp_path / "rows.zip")))
    assert [row.values for row in rows] == [{"a": 0}, *ROWS]
    assert rows[-1].where == "rows.zip row 4"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.json", b"\xef\xbb\xbf" + as_bytes("json")),
        ("bom.jsonl", b"\xef\xbb\xbf" + as_bytes("jsonl")),
        ("bom.csv", b"\xef\xbb\xbf" + as_bytes("csv")),
        ("lines.json", as_bytes("jsonl")),
        ("blank.jsonl", b"\n  \r\n" + as_bytes("jsonl").replace(b"\n", b"\r\n\r\n") + b"\n\n"),
        ("blank.json", b"\n\n [ \n" + as_bytes("json").strip()[1:-1] + b"\n ] \n\n"),
    ],
)
def test_marks_blank_lines_and_json_lines_in_a_json_file_are_read(name: str, content: bytes, write: Write) -> None:
    assert values(write(name, content)) == ROWS


def test_text_files_have_a_row_per_line_that_is_not_blank(write: Write) -> None:
    assert values(write("x.txt", "eins\r\n\n  zwei \x85 \u2028 \n")) == [
        {"text": "eins"},
        {"text": "  zwei \x85 \u2028 "},
    ]


@pytest.mark.parametrize("content", ["", "\n \n", "[]", " [ ] "])
def test_empty_files_have_no_rows(content: str, write: Write) -> None:
    assert values(write("x.json", content)) == []


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.jsonl", '{"a": 1}\n\n{"a": }\n', "line 3 column 7: Expecting value"),
        ("x.jsonl", '{"a": 1}\n{"a": "b\n', "line 2 column 7: Unterminated string"),
        ("x.jsonl", '{"a": 1} {"a": 2}\n', "line 1 column 10: Extra data"),
        ("x.jsonl", '{"a": 1}\n[1, 2]\n', "row 2 is a list, not an object"),
        ("x.json", '[\n {"a": 1},\n {"a": 2,}\n]', "line 3 column"),
        ("x.json", '[{"a": 1}\n {"a": 2}]', "line 2 column 2: Expecting ',' or ']'"),
        ("x.json", '[{"a": 1},\n', "line 2 column 1: the file ends inside the list"),
        ("x.json", '[{"a": 1}', "column 10: the file ends inside the list"),
        ("x.json", '[{"a": 1}, ]', "line 1 column 12: Expecting value"),
        ("x.json", '[{"a": 1}]\n[', "line 2 column 1: there is more after the list's end"),
        ("x.json", '[{"a": "b', "line 1 column 8: Unterminated string"),
        ("x.json", '[1, "b"]', "row 1 is a number"),
        ("x.json", "hello", "line 1 column 1: Expecting value"),
        ("x.csv", "a,b\n1,2\n\n1\n", "line 4 has 1 cells, the first line 2"),
        ("x.csv", 'a,b\n"1,2\n', "unexpected end of data"),
        ("x.jsonl", '{"a": "你好，世界"}'.encode("gbk"), "line 1 is not UTF-8 (byte 0xc4); it looks like gbk"),
        (
            "x.json",
            '[{"a": "b"},\n {"a": "你好，世界"}]'.encode("gb18030"),
            "line 2 is not UTF-8 (byte 0xc4); it looks like gbk",
        ),
        ("x.jsonl", '{"a": 1}\n{"a": "é"}'.encode("latin-1"), "line 2 is not UTF-8 (byte 0xe9)"),
        ("x.csv", "a\n你好\n".encode("gbk"), "line 2 is not UTF-8"),
        ("x.txt", "你好".encode("utf-16"), "is written in utf-16"),
        ("x.json", '[{"a": 1}]'.encode("utf-16"), "is written in utf-16"),
        ("x.json", '[{"a": 1}]'.encode("utf-16-le"), "is written in utf-16"),
        ("x.parquet", b"PAR1 not really", "is not a whole parquet file"),
        ("x.arrow", b"neither is this", "is not a whole arrow file"),
        ("x.json.gz", b"not gzip", "cannot be read"),
        ("x.json.gz", gzip.compress(as_bytes("json"))[:-12], "cannot be read"),
        ("x.json.xz", b"not xz", "cannot be read"),
        ("x.zip", b"not zip", "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_place(name: str, content: bytes | str, told: str, write: Write) -> None:
    path = write(name, content)
    with pytest.raises(DataError) as error:
        values(path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_and_a_kind_that_is_not_known_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.json: cannot be read"):
        values(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match=r"rows.xlsx: unknown kind of file; known are .json, .jsonl"):
        values(tmp_path / "rows.xlsx")


texts = st.text('ab,[]{}"\\\n 你🎉', max_size=6)
json_values = (
    texts | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.lists(texts, max_size=3)
)
json_rows = st.lists(st.dictionaries(texts, json_values, max_size=3), max_size=6)


@settings(deadline=None)
@given(json_rows, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_json_is_read_whole_through_a_window_of_any_size(
    rows: list[dict[str, Any]], chunk: int, indent: int | None, in_list: bool
) -> None:
    if in_list:
        content = json.dumps(rows, ensure_ascii=False, indent=indent)
    else:
        content = "\n".join(json.dumps(row, indent=indent) for row in rows)
    whole = files.CHUNK_BYTES
    files.CHUNK_BYTES = chunk
    try:
        read = list(files._read_json(io.BytesIO(content.encode("utf-8", "surrogatepass")), "x.json"))
    finally:
        files.CHUNK_BYTES = whole
    assert read == rows


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_places_in_json_are_right_through_a_window_of_any_size(
    chunk: int, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", chunk)
    good = ",\n".join(json.dumps({"text": "x" * length}) for length in range(40))
    with pytest.raises(DataError, match="line 41 column 2: Expecting property name"):
        values(write("x.json", f"[{good},\n{{'text': 1}},\n" + '{"text": 2},\n' * 200 + "]"))


def test_the_meter_counts_the_bytes_on_the_disk(write: Write) -> None:
    path = write("x.json.gz", gzip.compress(as_bytes("json")))
    meter = Meter()
    list(read_rows(str(path), meter))
    assert meter.read_bytes == path.stat().st_size
