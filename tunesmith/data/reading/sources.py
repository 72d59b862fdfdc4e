"""Names of datasets -> where their rows lie and how they are read.  Knows `dataset_info.json`, files and hubs; knows no
conversation and no token."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from tunesmith import log
from tunesmith.data.reading.files import Meter, Row, each_key_once, is_data_file, is_remote, read_rows, why_not_json
from tunesmith.files import sha256_of
from tunesmith.log import DataError, MissingExtra, OptionError
from tunesmith.templates.conversation import Thinking
from tunesmith.templates.tools import parsed

INFO = "dataset_info.json"
MOST_ROWS = 2**31
"""More than any dataset has."""

Formatting = Literal["alpaca", "sharegpt", "openai", "text"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a row holds what; None: the dataset has no such column."""

    prompt: str | None = "instruction"
    query: str | None = "input"
    response: str | None = "output"
    history: str | None = None
    messages: str | None = "conversations"
    system: str | None = None
    tools: str | None = None
    images: str | None = None
    videos: str | None = None
    audios: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    kto_tag: str | None = None
    thinking: str | None = None
    """What happens to the row's thoughts, in the words of the option `thinking`."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Which key of a message holds what, and how its roles are called."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    observation_tag: str = "observation"
    function_tag: str = "function_call"
    system_tag: str = "system"


OPENAI_TAGS = Tags("role", "content", "user", "assistant", "tool", "function_call", "system")

_ABSENT = Columns(*[None] * len(fields(Columns)))


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a dataset are understood."""

    formatting: Formatting = "alpaca"
    columns: Columns = field(default_factory=Columns)
    tags: Tags = field(default_factory=Tags)
    ranking: bool = False
    thinking: Thinking | None = None
    """What happens to the thoughts of its rows; None leaves it to the option."""


class Source(Protocol):
    """Where rows lie."""

    @property
    def size_bytes(self) -> int:
        """Bytes on the local disk; 0 when unknown."""
        ...

    def read(self, meter: Meter | None = None) -> Iterator[Row]:
        """The rows, from the first on; `meter` counts the bytes."""
        ...

    def digest(self) -> str | None:
        """Hash of all bytes; None where they are not on the local disk."""
        ...


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset, ready to be read."""

    name: str
    source: Source
    shape: Shape
    num_samples: int | None = None
    """Most rows to take; None: all."""
    weight: float | None = None
    """How often it is drawn when datasets are interleaved, relative to the others."""
    labels: tuple[str, ...] = ()
    """All that an answer may be; empty where answers are free text."""


@dataclass(slots=True)
class Entry:
    """One dataset of `dataset_info.json`, its keys as there."""

    file_name: str | None = None
    hf_hub_url: str | None = None
    ms_hub_url: str | None = None
    om_hub_url: str | None = None
    script_url: str | None = None
    cloud_file_name: str | None = None
    formatting: str | None = None
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    num_samples: int | None = None
    ranking: bool = False
    columns: dict[str, str | None] | None = None
    tags: dict[str, str] | None = None
    thinking: Thinking | None = None
    labels: list[str] | None = None


_NOT_BUILT = {
    "om_hub_url": "datasets of the Openmind hub are not built yet",
    "script_url": "dataset scripts run foreign code and are not supported; use a file or a hub's dataset",
}


class _UnknownName(OptionError):
    """What an option names is no dataset; which option, the caller knows."""


def find_datasets(
    names: Sequence[str],
    dataset_dir: str,
    search_folders: Sequence[Path] = (),
    *,
    streaming: bool = False,
    option: str = "dataset",
) -> list[Dataset]:
    """The datasets that `names` mean, in order: names of `dataset_info.json`, file paths, `hf:NAME` or `ms:NAME`, each
    with `#N` behind it to take N rows, and `@W` to give it a weight.

    `dataset_dir` and file paths are relative to the working directory, then to each of `search_folders`.  `streaming`: a
    hub's rows are read without being fetched as a whole first; `option`: which one names them.  Raises OptionError for
    names that mean nothing, DataError for files and entries that are wrong, all problems at once."""
    folder = _find_folder(dataset_dir, search_folders)
    registered = _read_info(folder)
    found: list[Dataset] = []
    unknown: list[str] = []
    broken: list[str] = []
    for written in names:
        try:
            found.append(_find(written, registered, folder, search_folders, streaming))
        except _UnknownName as reason:
            unknown += [f"{option}: {each}" for each in reason.problems]
        except OptionError as reason:
            unknown += reason.problems
        except DataError as reason:
            broken.append(str(reason))
    if unknown:
        raise OptionError(*unknown, *broken)
    if broken:
        raise DataError("\n".join(broken))
    return found


def _find(
    written: str, registered: dict[str, Any], folder: Path, search_folders: Sequence[Path], streaming: bool
) -> Dataset:
    name, limit, weight = written, None, None
    if written not in registered and (match := re.fullmatch(r"(.+)@(\d+(?:\.\d*)?|\.\d+)", written)):
        name, weight = match[1], float(match[2])
    if name not in registered and (match := re.fullmatch(r"(.+)#(\d+)", name)):
        name, limit = match[1], int(match[2]) if len(match[2]) < 10 else MOST_ROWS
        if limit < 1:
            raise _UnknownName(f"{written}: at least 1 row must be taken")
    dataset = _find_plain(name, registered, folder, search_folders, streaming)
    if limit is not None:
        dataset = replace(dataset, num_samples=min(limit, dataset.num_samples or limit))
    return dataset if weight is None else replace(dataset, weight=weight)


def _find_plain(
    name: str, registered: dict[str, Any], folder: Path, search_folders: Sequence[Path], streaming: bool
) -> Dataset:
    if name in registered:
        subject = f"{folder / 'dataset_info.json'}: {name}"
        return _from_entry(name, _checked_entry(registered[name], subject), folder, subject, streaming)
    hub, _, path = name.partition(":")
    if hub in ("hf", "ms") and path:
        return _guessed(name, HubSource(path, hub, Entry(), streaming))
    if is_remote(name):
        return _guessed(name, FileSource([name]))
    for start in (Path(), *search_folders, folder):
        place = start / Path(name).expanduser()
        if os.path.exists(place):
            return _guessed(name, FileSource(_files_of(place)))
    raise _UnknownName(_unknown(name, registered, folder))


def _unknown(name: str, registered: dict[str, Any], folder: Path) -> str:
    if is_data_file(name):
        dead = [str(place) for place in (Path(name).expanduser(), folder / name) if os.path.islink(place)]
        return f"{dead[0]} is a symbolic link that leads nowhere" if dead else f"there is no file {name}"
    info = folder / INFO
    if not registered:
        return f"'{name}' is no file, and there is no {info} that registers names (dataset_dir)"
    known = ", ".join(sorted(registered)[:20]) + (", ..." if len(registered) > 20 else "")
    return f"'{name}' is not in {info}{nearest(name, registered)}; it has {known}"


def nearest(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    """`; did you mean 'x'?` for the known word nearest to `word`, or ''."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _find_folder(dataset_dir: str, search_folders: Sequence[Path]) -> Path:
    """The first place of `dataset_dir` that has a `dataset_info.json`, else the first that is there at all."""
    places = [start / Path(dataset_dir).expanduser() for start in (Path(), *search_folders)]
    registering = (place for place in places if (place / INFO).is_file())
    return next(registering, next((place for place in places if place.is_dir()), places[0]))


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / INFO
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=each_key_once)
    except json.JSONDecodeError as reason:
        raise DataError(f"{path}:{reason.lineno}: {reason.msg} (column {reason.colno})") from reason
    except UnicodeDecodeError as reason:
        raise DataError(f"{path}: is not UTF-8 (byte {reason.start + 1}); write it anew in UTF-8") from reason
    except (ValueError, RecursionError) as reason:
        raise DataError(f"{path}: {why_not_json(reason)}") from reason
    except OSError as reason:
        raise DataError(f"{path}: cannot be read: {reason.strerror}") from reason
    if not isinstance(info, dict):
        raise DataError(f"{path}: must be an object that names datasets")
    return info


def _checked_entry(raw: Any, subject: str) -> Entry:
    """An entry whose keys are all known and of the right type.  Raises DataError with every problem."""
    if not isinstance(raw, dict):
        raise DataError(f'{subject}: must be an object, such as {{"file_name": "rows.json"}}')
    problems = _problems(raw, Entry, subject)
    for part, kind in (("columns", Columns), ("tags", Tags)):
        if isinstance(raw.get(part), dict):
            problems += _problems(raw[part], kind, f"{subject}: {part}")
    if raw.get("formatting") not in (None, *get_args(Formatting)):
        problems.append(f"{subject}: formatting must be {', '.join(get_args(Formatting))}, got {raw['formatting']!r}")
    if raw.get("thinking") not in (None, *get_args(Thinking)):
        problems.append(f"{subject}: thinking must be {', '.join(get_args(Thinking))}, got {raw['thinking']!r}")
    columns = raw.get("columns") or {}
    if raw.get("ranking") is True and isinstance(columns, dict) and not {"chosen", "rejected"} <= set(columns):
        problems.append(f"{subject}: ranking needs columns chosen and rejected")
    if isinstance(raw.get("num_samples"), int) and not 1 <= raw["num_samples"] <= MOST_ROWS:
        problems.append(f"{subject}: num_samples must be at least 1 and at most {MOST_ROWS}, got {raw['num_samples']}")
    labels = raw.get("labels")
    if isinstance(labels, list) and (len({str(one) for one in labels}) < 2 or not all(map(_is_text, labels))):
        problems.append(f"{subject}: labels must be at least two different texts, got {labels!r}")
    problems += [f"{subject}: {key}: {why}" for key, why in _NOT_BUILT.items() if raw.get(key)]
    if problems:
        raise DataError("\n".join(problems))
    return Entry(**{key: value for key, value in raw.items() if value is not None})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


_WANTED: dict[str, tuple[type, str]] = {
    "num_samples": (int, "a whole number"),
    "ranking": (bool, "true or false"),
    "columns": (dict, "an object"),
    "tags": (dict, "an object"),
    "labels": (list, "a list of texts"),
}


def _problems(raw: dict[str, Any], kind: type, subject: str) -> list[str]:
    """What is wrong with the keys and value types of one object of `dataset_info.json`."""
    known = [each.name for each in fields(kind)]
    problems = []
    for key, value in raw.items():
        wanted, called = _WANTED.get(key, (str, "a text"))
        if key not in known:
            problems.append(f"{subject}: unknown key '{key}'{nearest(key, known)}; known are {', '.join(known)}")
        elif value is not None and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
            problems.append(f"{subject}: {key} must be {called}, got {value!r}")
    return problems


def _from_entry(name: str, entry: Entry, folder: Path, subject: str, streaming: bool) -> Dataset:
    hub_first = [(entry.hf_hub_url, "hf"), (entry.ms_hub_url, "ms")]
    if os.environ.get("USE_MODELSCOPE_HUB", "0").lower() in ("1", "true", "yes"):
        hub_first.reverse()
    hub = next(((url, kind) for url, kind in hub_first if url), None)
    if hub:
        source: Source = HubSource(hub[0], hub[1], entry, streaming)
    elif entry.cloud_file_name:
        source = FileSource([entry.cloud_file_name])
    elif entry.file_name:
        path = folder / entry.file_name
        if not os.path.exists(path):
            what = f"{path} is a link that leads nowhere" if os.path.islink(path) else f"there is no file {path}"
            raise DataError(f"{subject}: {what}")
        source = FileSource(_files_of(path))
    else:
        raise DataError(f"{subject}: needs one of file_name, hf_hub_url, ms_hub_url, cloud_file_name")
    formatting: Any = entry.formatting or "alpaca"
    tags = replace(OPENAI_TAGS if formatting == "openai" else Tags(), **(entry.tags or {}))
    shape = Shape(formatting, _columns(entry.columns, formatting), tags, entry.ranking, entry.thinking)
    return Dataset(name, source, shape, entry.num_samples, labels=tuple(entry.labels or ()))


def _columns(written: dict[str, str | None] | None, formatting: Formatting) -> Columns:
    """The columns an entry names.  As everywhere in this field, an entry with `columns` has only those it names, but
    for `messages`, without which there is nothing to read."""
    messages = "messages" if formatting == "openai" else "conversations"
    return Columns(messages=messages) if written is None else replace(_ABSENT, **{"messages": messages, **written})


def _files_of(path: Path) -> list[str]:
    """The data files of a folder in the order of their names, or the one file."""
    if not path.is_dir():
        return [str(path)]
    found = (each for each in path.iterdir() if each.is_file() and is_data_file(each.name))
    files = sorted(str(each) for each in found if each.name != INFO)
    if not files:
        code = sorted(each.name for each in path.glob("*.py"))
        more = f"; {code[0]} is a program, and none is run to get rows" if code else ""
        raise DataError(f"{path}: holds no data file{more}")
    return files


@dataclass(frozen=True, slots=True)
class FileSource:
    """Rows in files, one file after another."""

    paths: Sequence[str]

    @property
    def size_bytes(self) -> int:
        return sum(os.path.getsize(path) for path in self.paths if not is_remote(path))

    def read(self, meter: Meter | None = None) -> Iterator[Row]:
        for path in self.paths:
            yield from read_rows(path, meter)

    def digest(self) -> str | None:
        if any(is_remote(path) for path in self.paths):
            return None
        whole = hashlib.sha256()
        for path in self.paths:
            try:
                whole.update(f"{Path(path).name} {sha256_of(Path(path))}\n".encode())
            except OSError as reason:
                raise DataError(f"{path}: cannot be read: {reason.strerror}") from reason
        return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class HubSource:
    """Rows of a dataset on Hugging Face (`hf`) or ModelScope (`ms`), through the hub's own library and its cache."""

    url: str
    hub: str
    entry: Entry
    streaming: bool = False
    size_bytes: int = 0

    def read(self, meter: Meter | None = None) -> Iterator[Row]:
        load = _load_modelscope if self.hub == "ms" else _load_huggingface
        for number, values in enumerate(load(self.url, self.entry, self.streaming), start=1):
            yield Row(dict(values), f"{self.hub}:{self.url}", number)

    def digest(self) -> str | None:
        return None


def _load_huggingface(url: str, entry: Entry, streaming: bool) -> Any:
    import datasets

    try:
        return datasets.load_dataset(
            url, name=entry.subset, data_dir=entry.folder, split=entry.split, streaming=streaming
        )
    except Exception as reason:  # the library raises many kinds; each means that these rows cannot be had
        raise DataError(f"hf:{url}: cannot be loaded: {reason}") from reason


def _load_modelscope(url: str, entry: Entry, streaming: bool) -> Any:
    if streaming:
        raise OptionError(f"streaming: ms:{url}: rows of ModelScope are not streamed yet; files and hf: are")
    try:
        from modelscope import MsDataset  # type: ignore[import-not-found]
    except ImportError as reason:
        raise MissingExtra("ms: datasets need ModelScope: pip install 'tunesmith[modelscope]'") from reason
    try:
        loaded = MsDataset.load(url, subset_name=entry.subset, data_dir=entry.folder, split=entry.split)
    except Exception as reason:  # as above
        raise DataError(f"ms:{url}: cannot be loaded: {reason}") from reason
    return loaded.to_hf_dataset()


def _guessed(name: str, source: Source) -> Dataset:
    """A dataset without an entry: how it is read is guessed from its first row's columns, and told."""
    first = next(islice(source.read(), 1), None)
    if first is None:
        raise DataError(f"{name}: holds no rows")
    shape = _guess(first.values, name, first.where)
    used = [f"{part}={column}" for part, column in asdict(shape.columns).items() if column]
    log.note(name, f"read as {shape.formatting}{' with ranking' if shape.ranking else ''} ({', '.join(used)})")
    return Dataset(name, source, shape)


_ALPACA_NAMES = {
    "prompt": ("instruction", "prompt", "question"),
    "query": ("input", "query"),
    "response": ("output", "response", "completion", "answer"),
}
_MORE_COLUMNS = ("history", "system", "tools", "chosen", "rejected", "images", "videos", "audios")


MOST_COLUMNS, LONGEST_COLUMN = 20, 60
"""Columns that a message lists, and letters of each."""


def _listed(columns: Iterable[str]) -> str:
    """Names of columns, as many as a message has room for."""
    shown = [name if len(name) <= LONGEST_COLUMN else name[:LONGEST_COLUMN] + "..." for name in columns]
    return ", ".join(shown if len(shown) <= MOST_COLUMNS else [*shown[:MOST_COLUMNS], "..."])


def _messages_of(value: Any) -> Any:
    """A list of messages, also one that is written as a JSON text; None for what is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return parsed(value)
    except ValueError:
        return None


def _guess(row: dict[str, Any], name: str, where: str) -> Shape:
    more = {key: key for key in _MORE_COLUMNS if key in row}
    ranking = "chosen" in row and "rejected" in row
    for column in ("messages", "conversations"):
        turns = _messages_of(row.get(column))
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            columns = replace(_ABSENT, messages=column, **more)
            if "from" in turns[0]:
                return Shape("sharegpt", columns, Tags(), ranking)
            return Shape("openai", columns, OPENAI_TAGS, ranking)
    plain = {part: next((n for n in names if n in row), None) for part, names in _ALPACA_NAMES.items()}
    if plain["prompt"] and (plain["response"] or ranking):
        return Shape("alpaca", replace(_ABSENT, **plain, **more), Tags(), ranking)
    text = next((key for key in ("text", "prompt", "content") if key in row), None)
    if text:
        return Shape("text", replace(_ABSENT, prompt=text))
    if odd := [column for column in ("messages", "conversations") if column in row]:
        raise DataError(f"{name}: {where}: '{odd[0]}' is not a list of messages, so what it holds cannot be told")
    raise DataError(
        f"{name}: {where}: its columns ({_listed(row)}) are none that are known; "
        "register it in dataset_info.json and name its columns there"
    )
