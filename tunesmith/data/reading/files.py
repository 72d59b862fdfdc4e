"""Data files -> rows: json, jsonl, csv, tsv, parquet, arrow and txt, plain or compressed, local or remote.  Knows bytes
and lines; knows no dataset's name and no column's meaning."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from tunesmith.log import DataError, MissingExtra, warn

Values = dict[str, Any]


class TwiceError(ValueError):
    """An object of a JSON file has a key twice."""


def each_key_once(pairs: list[tuple[str, Any]]) -> Values:
    """An object of a JSON file.  Raises TwiceError for one that has a key twice, of which one value would be lost."""
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise TwiceError(next(key for key in keys if keys.count(key) > 1))
    return values


def why_not_json(problem: Exception) -> str:
    """In our words, why Python's json gave up."""
    if isinstance(problem, json.JSONDecodeError):
        return problem.msg
    if isinstance(problem, TwiceError):
        return f"an object has the key '{problem}' twice"
    return "it is nested too deeply" if isinstance(problem, RecursionError) else "a number of thousands of digits"


class Row(NamedTuple):
    """One row of a file.  `number` counts the file's rows from 1; `dataset` is that of the dataset, among several, that
    the row belongs to."""

    values: Values
    file: str
    number: int
    dataset: int = 0

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.file} row {self.number}"


@dataclass(slots=True)
class Meter:
    """Counts the bytes that were read, as they lie on the disk."""

    read_bytes: int = 0


CHUNK_BYTES = 1 << 20
_DECODER = json.JSONDecoder(object_pairs_hook=each_key_once)
_NO_FILE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_BLANK = re.compile(r"[ \t\r\n]*")
_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number", bool: "a truth value"}


def is_data_file(name: str) -> bool:
    """Whether a file's name ends as one that `read_rows` reads."""
    stem, packed = _unpacked(name)
    return packed == ".zip" or _suffix(stem) in _READERS


def is_remote(path: str) -> bool:
    """Whether a path names another file system, such as `s3://bucket/rows.jsonl`."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path) is not None


def read_rows(path: str, meter: Meter | None = None) -> Iterator[Row]:
    """The rows of one file, read as they are asked for; `meter` counts its bytes.  Raises DataError naming file, line and reason, also for
    a kind of file that is not known."""
    name = path.rsplit("/", 1)[-1] if is_remote(path) else Path(path).name
    if not is_data_file(name):
        raise DataError(f"{path}: unknown kind of file; known are {', '.join(_READERS)}, also as {', '.join(_OPENERS)}")
    try:
        number = 0
        for stream, member in _streams(path, name, meter or Meter()):
            with stream:
                for values in _READERS[_suffix(_unpacked(member)[0])](stream, path):
                    number += 1
                    if not isinstance(values, dict):
                        kind = _NAMES.get(type(values), "null")
                        raise DataError(f"{path}: row {number} is {kind}, not an object with columns")
                    yield Row(values, name, number)
    except _NO_FILE as reason:
        raise DataError(f"{path}: cannot be read: {reason}") from reason


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _unpacked(name: str) -> tuple[str, str]:
    """A file's name without the suffix of its compression, and that suffix or ''."""
    suffix = _suffix(name)
    return (name[: -len(suffix)], suffix) if suffix in _OPENERS else (name, "")


def _streams(path: str, name: str, meter: Meter) -> Iterator[tuple[IO[bytes], str]]:
    """The byte streams inside a file and their names: one, or each member of a zip archive."""
    packed = _unpacked(name)[1]
    if packed != ".zip":
        stream = _open(path, meter)
        yield _OPENERS[packed](stream) if packed else stream, name
        return
    with _open(path, meter) as raw, zipfile.ZipFile(raw) as archive:
        members = [m for m in sorted(archive.namelist()) if _suffix(_unpacked(m)[0]) in _READERS]
        if not members:
            raise DataError(f"{path}: holds no data file")
        for member in members:
            try:
                stream = archive.open(member)
            except RuntimeError as reason:  # a password, or a way to compress that Python does not know
                raise DataError(f"{path}: cannot be read: {reason}") from reason
            packed = _unpacked(member)[1]
            yield _OPENERS[packed](stream) if packed else stream, member


class _Metered(io.FileIO):
    """A local file whose reads are counted."""

    def __init__(self, path: str, meter: Meter):
        super().__init__(path)
        self.meter = meter

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        self.meter.read_bytes += count
        return count


def _open(path: str, meter: Meter) -> IO[bytes]:
    if not is_remote(path):
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
            raise DataError(f"{path}: is {kind}, not a file")
        return io.BufferedReader(_Metered(path, meter), CHUNK_BYTES)
    import fsspec  # type: ignore[import-untyped]

    try:
        return fsspec.open(path, "rb").open()
    except ImportError as reason:
        package = _READ_BY.get(path.partition("://")[0])
        raise MissingExtra(f"{path}: needs a package: {f'pip install {package}' if package else reason}") from reason


_READ_BY = {
    "http": "'tunesmith[http]'",
    "https": "'tunesmith[http]'",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}
"""Protocol of an address -> the package that fsspec reads it with, when that is not among ours."""


def _open_zstd(stream: IO[bytes]) -> IO[bytes]:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(stream), "zstd"))


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _open_zstd,
    ".zip": lambda stream: stream,
}


def _lines(stream: IO[bytes], path: str) -> Iterator[str]:
    """A file's lines with their ends, without a byte order mark."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            _refuse_other_kinds(line, path)
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield line.decode()
        except UnicodeDecodeError as reason:
            raise _not_utf8(path, number, line, reason.start) from reason


END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""What an arrow stream ends with, unless it was cut or its writer never closed it."""

_LFS = b"version https://git-lfs"
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed with gzip; name it so (.json.gz)",
    b"BZh": "compressed with bzip2; name it so (.json.bz2)",
    b"\xfd7zX": "compressed with xz; name it so (.json.xz)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; name it so (.json.zst)",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a parquet file; name it so (.parquet)",
    b"ARRO": "an arrow file; name it so (.arrow)",
    _LFS: "a Git LFS pointer, not the rows themselves (`git lfs pull` fetches them)",
    b"\xff\xfe\0\0": "written in utf-32; write it anew in UTF-8: iconv -f utf-32 -t utf-8",
}
"""How a file begins that its name calls text -> what it is."""


def _refuse_other_kinds(start: bytes, path: str) -> None:
    if found := next((kind for mark, kind in _OTHER_KINDS.items() if start.startswith(mark)), None):
        raise DataError(f"{path}: is {found}")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start[:4]:
        raise DataError(f"{path}: is written in utf-16; write it anew in UTF-8: iconv -f utf-16 -t utf-8")


def _not_utf8(path: str, line: int, text: bytes, at: int) -> DataError:
    """The error for bytes that are no UTF-8, with a guess at what they are: two-byte Chinese decodes to Chinese."""
    try:
        chinese = re.search(r"[一-鿿]{2}", text.decode("gb18030"))
    except UnicodeDecodeError:
        chinese = None
    guess = "; it looks like gbk; write it anew in UTF-8: iconv -f gbk -t utf-8" if chinese else ""
    return DataError(f"{path}: line {line} is not UTF-8 (byte 0x{text[at]:02x}){guess}")


def _read_jsonl(stream: IO[bytes], path: str) -> Iterator[Any]:
    for number, line in enumerate(_lines(stream, path), start=1):
        if line.isspace():
            continue
        try:
            yield _DECODER.decode(line.rstrip("\r\n"))
        except (ValueError, RecursionError) as reason:
            column = f" column {reason.colno}" if isinstance(reason, json.JSONDecodeError) else ""
            raise DataError(f"{path}: line {number}{column}: {why_not_json(reason)}") from reason


def _read_txt(stream: IO[bytes], path: str) -> Iterator[Any]:
    for line in _lines(stream, path):
        if not line.isspace():
            yield {"text": line.rstrip("\r\n")}


def _read_csv(stream: IO[bytes], path: str, delimiter: str = ",") -> Iterator[Any]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(_lines(stream, path), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header and len(set(header)) != len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise DataError(f"{path}: line 1 names the column '{twice}' twice")
        for cells in reader:
            if not cells:
                continue
            if header is None or len(cells) != len(header):
                expected = len(header or ())
                raise DataError(f"{path}: line {reader.line_num} has {len(cells)} cells, the first line {expected}")
            yield dict(zip(header, cells, strict=True))
    except csv.Error as reason:
        raise DataError(f"{path}: line {reader.line_num}: {reason}") from reason


def _read_tsv(stream: IO[bytes], path: str) -> Iterator[Any]:
    return _read_csv(stream, path, delimiter="\t")


def _seekable(stream: IO[bytes], path: str) -> IO[bytes]:
    """The same bytes, in which a reader may jump."""
    source = stream if stream.seekable() else io.BytesIO(stream.read())
    if source.read(len(_LFS)) == _LFS:
        raise DataError(f"{path}: is {_OTHER_KINDS[_LFS]}")
    source.seek(0)
    return source


def _rows_of(batch: Any, path: str, done: int) -> list[Any]:
    """The rows of a batch of pyarrow's, before which there were `done`.  Raises DataError naming the first that holds what
    Python cannot: a date behind the year 9999, a text that is no UTF-8."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(batch.num_rows):
            try:
                batch.slice(number, 1).to_pylist()
            except (ValueError, OverflowError) as reason:
                raise DataError(f"{path}: row {done + number + 1} cannot be read: {reason}") from reason
        raise


def _read_parquet(stream: IO[bytes], path: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        done = 0
        for batch in pyarrow.parquet.ParquetFile(_seekable(stream, path)).iter_batches(batch_size=1024):
            yield from _rows_of(batch, path, done)
            done += batch.num_rows
    except pyarrow.ArrowException as reason:
        raise DataError(f"{path}: is not a whole parquet file: {reason}") from reason


def _read_arrow(stream: IO[bytes], path: str) -> Iterator[Any]:
    import pyarrow

    try:
        source, done = _seekable(stream, path), 0
        whole = source.read(6) == b"ARROW1"  # otherwise the streaming form, which `datasets` writes
        source.seek(0)
        if whole:
            file = pyarrow.ipc.open_file(source)
            batches: Any = map(file.get_batch, range(file.num_record_batches))
        else:
            batches = pyarrow.ipc.open_stream(source)
        for batch in batches:
            yield from _rows_of(batch, path, done)
            done += batch.num_rows
    except pyarrow.ArrowException as reason:
        raise DataError(f"{path}: is not a whole arrow file: {reason}") from reason
    if not whole:
        source.seek(-len(END_OF_STREAM), io.SEEK_END)
        if source.read() != END_OF_STREAM:
            warn(
                path,
                f"ends without the mark that an arrow stream ends with; {done} rows were read, more may be missing",
            )


def _read_json(stream: IO[bytes], path: str) -> Iterator[Any]:
    """Objects in a list, or one after another (JSON lines in a .json file)."""
    text = _Window(stream, path)
    opening = text.peek()
    if opening != "[":
        while text.peek():
            yield text.value()
        return
    text.take()
    if text.peek() == "]":
        text.take()
    else:
        separator = ","
        while separator == ",":
            if text.peek() == "":
                raise text.error("the file ends inside the list")
            yield text.value()
            separator = text.peek()
            if separator not in (",", "]"):
                raise text.error(
                    "Expecting ',' or ']' after an object" if separator else "the file ends inside the list"
                )
            text.take()
    if text.peek():
        raise text.error("there is more after the list's end")


class _Window:
    """A window of text that slides over a JSON file, so that memory does not grow with the file."""

    def __init__(self, stream: IO[bytes], path: str):
        self.stream, self.path = stream, path
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.scan = _DECODER.raw_decode
        self.text, self.at, self.ended = "", 0, False
        self.lines_before, self.columns_before = 0, 0

    def peek(self) -> str:
        """The next character that is not blank, or '' at the file's end."""
        while True:
            match = _BLANK.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def take(self) -> None:
        """Step over the character that `peek` gave."""
        self.at += 1

    def value(self) -> Any:
        """The value that starts at the window's place."""
        while True:
            try:
                value, self.at = self.scan(self.text, self.at)
                return value
            except json.JSONDecodeError as reason:
                # Only a value that runs into the window's end may be whole in a larger window.
                cut = reason.msg.startswith("Unterminated string") or reason.pos >= len(self.text) - 8
                if not (cut and self._more()):
                    raise self.error(reason.msg, reason.pos) from reason
            except (ValueError, RecursionError) as reason:
                raise self.error(why_not_json(reason)) from reason

    def error(self, reason: str, at: int | None = None) -> DataError:
        """The error for what stands at a place of the window, with its line and column in the file."""
        at = self.at if at is None else at
        line = self.lines_before + self.text.count("\n", 0, at) + 1
        start = self.text.rfind("\n", 0, at)
        column = at - start if start >= 0 else self.columns_before + at + 1
        return DataError(f"{self.path}: line {line} column {column}: {reason}")

    def _more(self) -> bool:
        """Read on, forgetting what was taken.  False at the file's end."""
        if self.ended:
            return False
        chunk = self.stream.read(max(CHUNK_BYTES, len(self.text) - self.at))
        if self.lines_before == 0 and not self.text:
            _refuse_other_kinds(chunk, self.path)
        try:
            fresh = self.decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as reason:
            before, after = reason.object[: reason.start], reason.object[reason.start :]
            line = self.lines_before + self.text.count("\n") + before.count(b"\n") + 1
            start = before.rsplit(b"\n", 1)[-1]
            raise _not_utf8(self.path, line, start + after.split(b"\n", 1)[0], len(start)) from reason
        self.ended = not chunk
        if not fresh and self.ended:
            return False
        newline = self.text.rfind("\n", 0, self.at)
        self.columns_before = self.at - newline - 1 if newline >= 0 else self.columns_before + self.at
        self.lines_before += self.text.count("\n", 0, self.at)
        self.text, self.at = self.text[self.at :] + fresh, 0
        return True


_READERS: dict[str, Callable[[IO[bytes], str], Iterator[Any]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".txt": _read_txt,
}
