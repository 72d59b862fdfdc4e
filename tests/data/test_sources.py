"""Names lead to the right rows, and a wrong name or key is told with its nearest neighbour."""

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.reading.sources import OPENAI_TAGS, Columns, Dataset, HubSource, Tags, find_datasets
from tunesmith.log import DataError, MissingExtra, OptionError

ALPACA = [{"instruction": "a", "input": "", "output": "b"}]
Write = Callable[[str, Any], Path]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files of a folder and says nothing."""

    def log_message(self, format: str, *args: Any) -> None: ...


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    return [row.values for row in dataset.source.read()]


def one(name: str, folder: Path, *search: Path) -> Dataset:
    (dataset,) = find_datasets([name], str(folder), search)
    return dataset


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> Path:
    write("data/rows.json", ALPACA * 3)
    write("data/parts/b.jsonl", '{"part": 2}')
    write("data/parts/a.json", '[{"part": 1}]')
    write("data/parts/readme.md", "not data")
    info = {
        "rows": {"file_name": "rows.json"},
        "few": {"file_name": "rows.json", "num_samples": 2},
        "folder": {"file_name": "parts"},
        "tools": {
            "file_name": "rows.json",
            "formatting": "sharegpt",
            "columns": {"messages": "talk", "system": "sys"},
            "tags": {"role_tag": "who", "content_tag": "says"},
        },
        "messages": {"file_name": "rows.json", "formatting": "openai"},
        "named": {"file_name": "rows.json", "columns": {"prompt": "q", "response": "a", "query": None}},
        "hub": {"hf_hub_url": "someone/rows", "subset": "en", "split": "test", "folder": "v2"},
        "modelscope": {"ms_hub_url": "someone/rows"},
    }
    write("data/dataset_info.json", info)
    return tmp_path / "data"


def test_a_registered_name_leads_to_its_file(folder: Path) -> None:
    dataset = one("rows", folder)
    assert (dataset.name, dataset.shape.formatting, rows(dataset)) == ("rows", "alpaca", ALPACA * 3)
    assert dataset.shape.columns == Columns() and dataset.shape.tags == Tags()


def test_a_folder_gives_its_data_files_in_the_order_of_names(folder: Path) -> None:
    assert rows(one("folder", folder)) == [{"part": 1}, {"part": 2}]


def test_a_number_behind_a_name_takes_so_many_rows(folder: Path) -> None:
    assert one("rows", folder).num_samples is None
    assert one("rows#2", folder).num_samples == 2
    assert one("few#1", folder).num_samples == 1
    assert one("few#5", folder).num_samples == 2
    with pytest.raises(OptionError, match="rows#0: at least 1 row"):
        one("rows#0", folder)


def test_an_entry_with_columns_has_only_those_and_its_tags_change_only_what_they_name(folder: Path) -> None:
    shape = one("tools", folder).shape
    assert (shape.columns.messages, shape.columns.system, shape.columns.prompt) == ("talk", "sys", None)
    assert (shape.tags.role_tag, shape.tags.content_tag, shape.tags.user_tag) == ("who", "says", "human")
    named = one("named", folder).shape.columns
    assert (named.prompt, named.query, named.response) == ("q", None, "a")


def test_openai_messages_need_no_columns_and_no_tags(folder: Path) -> None:
    shape = one("messages", folder).shape
    assert shape.columns.messages == "messages" and shape.tags == OPENAI_TAGS


def test_hubs_are_known_by_entry_and_by_prefix_and_asked_only_when_rows_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = one("hub", folder).source
    assert isinstance(source, HubSource)
    assert (source.hub, source.url, source.entry.subset, source.entry.split, source.entry.folder) == (
        "hf", "someone/rows", "en", "test", "v2",
    )  # fmt: skip
    source = one("modelscope", folder).source
    assert isinstance(source, HubSource) and source.hub == "ms"
    monkeypatch.setattr(
        "tunesmith.data.reading.sources._load_huggingface", lambda url, entry, streaming: [{"text": url}]
    )
    assert rows(one("hf:someone/rows", folder)) == [{"text": "someone/rows"}]
    (row,) = one("hf:someone/rows", folder).source.read()
    assert row.where == "hf:someone/rows row 1"


def test_a_hub_dataset_in_a_local_folder_is_loaded_through_its_library(write: Write, tmp_path: Path) -> None:
    write("hub/train.jsonl", '{"text": "eins"}\n{"text": "zwei"}')
    dataset = one(f"hf:{tmp_path}/hub", tmp_path)
    assert rows(dataset) == [{"text": "eins"}, {"text": "zwei"}]


def test_dataset_dir_is_found_beside_the_yaml_file_and_the_working_directory_wins(
    folder: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (dataset,) = find_datasets(["rows"], "data", [tmp_path])
    assert len(rows(dataset)) == 3
    write("elsewhere/data/rows.json", ALPACA)
    write("elsewhere/data/dataset_info.json", {"rows": {"file_name": "rows.json"}})
    (dataset,) = find_datasets(["rows"], "data", [tmp_path])
    assert len(rows(dataset)) == 1


@pytest.mark.parametrize("start", ["working directory", "yaml's folder", "dataset_dir", "absolute"])
def test_a_file_needs_no_dataset_info(
    start: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("here/x.json", ALPACA)
    monkeypatch.chdir(tmp_path / "here" if start == "working directory" else tmp_path)
    search = [tmp_path / "here"] if start == "yaml's folder" else []
    name = str(tmp_path / "here/x.json") if start == "absolute" else "x.json"
    (dataset,) = find_datasets([name], "here" if start == "dataset_dir" else "data", search)
    assert rows(dataset) == ALPACA


@pytest.mark.parametrize(
    ("row", "formatting", "told"),
    [
        (
            {"instruction": "a", "input": "", "output": "b"},
            "alpaca",
            "prompt=instruction, query=input, response=output",
        ),
        (
            {"prompt": "a", "completion": "b", "system": "c"},
            "alpaca",
            "prompt=prompt, response=completion, system=system",
        ),
        ({"instruction": "a", "output": "b", "history": []}, "alpaca", "history=history"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "alpaca with ranking", "chosen=chosen, rejected=rejected"),
        ({"messages": [{"role": "user", "content": "a"}]}, "openai", "messages=messages"),
        ({"conversations": [{"role": "user", "content": "a"}]}, "openai", "messages=conversations"),
        ({"conversations": [{"from": "human", "value": "a"}], "tools": "[]"}, "sharegpt", "tools=tools"),
        ({"messages": '[{"from": "human", "value": "a"}]'}, "sharegpt", "messages=messages"),
        ({"text": "a"}, "text", "prompt=text"),
        ({"prompt": "a"}, "text", "prompt=prompt"),
    ],
)
def test_how_a_plain_file_is_read_is_guessed_from_its_columns_and_told(
    row: dict[str, Any], formatting: str, told: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = one(str(write("x.jsonl", json.dumps(row))), tmp_path).shape
    assert shape.formatting == formatting.split()[0]
    assert shape.ranking == formatting.endswith("ranking")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and f"read as {formatting} (" in line and told in line


def test_a_guess_that_cannot_be_made_names_the_columns(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns \(alpha, beta\).*dataset_info.json"):
        one(str(write("x.json", [{"alpha": 1, "beta": 2}])), tmp_path)
    with pytest.raises(DataError, match="holds no rows"):
        one(str(write("y.json", [])), tmp_path)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"file_nme": "rows.json"}, "unknown key 'file_nme'; did you mean 'file_name'?"),
        ({"file_name": "rows.json", "columns": {"promt": "a"}}, "columns: unknown key 'promt'; did you mean 'prompt'?"),
        ({"file_name": "rows.json", "tags": {"role": "a"}}, "tags: unknown key 'role'; did you mean 'role_tag'?"),
        ({"file_name": "rows.json", "formatting": "aplaca"}, "formatting must be alpaca, sharegpt, openai, text"),
        ({"file_name": "rows.json", "num_samples": "5"}, "num_samples must be a whole number, got '5'"),
        ({"file_name": "rows.json", "num_samples": True}, "num_samples must be a whole number"),
        ({"file_name": "rows.json", "ranking": 1}, "ranking must be true or false"),
        ({"file_name": "rows.json", "columns": {"prompt": 3}}, "prompt must be a text, got 3"),
        ({"file_name": "rows.json", "ranking": True}, "ranking needs columns chosen and rejected"),
        (
            {"file_name": "rows.json", "thinking": "stripp"},
            "thinking must be as_data, strip_history, empty_masked, strip",
        ),
        ({"script_url": "x"}, "script_url: dataset scripts run foreign code"),
        ({"om_hub_url": "x"}, "om_hub_url: datasets of the Openmind hub are not built yet"),
        ({"file_name": "none.json"}, "there is no file"),
        ({"formatting": "alpaca"}, "needs one of file_name"),
        ([], "must be an object"),
    ],
)
def test_what_is_wrong_with_an_entry_is_told(entry: Any, told: str, write: Write, tmp_path: Path) -> None:
    write("rows.json", ALPACA)
    write("dataset_info.json", {"mine": entry, "broken too, but not asked for": 7})
    with pytest.raises(DataError) as error:
        one("mine", tmp_path)
    assert told in str(error.value) and f"{tmp_path}/dataset_info.json: mine" in str(error.value)


def test_all_wrong_names_are_told_at_once_with_the_nearest(folder: Path) -> None:
    with pytest.raises(OptionError) as error:
        find_datasets(["rowz", "rows", "nowhere.json"], str(folder))
    first, second = error.value.problems
    assert "'rowz' is not in" in first and "did you mean 'rows'?" in first and "few, folder" in first
    assert second == "dataset: there is no file nowhere.json"


def test_a_broken_dataset_info_names_line_and_column(write: Write, tmp_path: Path) -> None:
    write("dataset_info.json", '{\n  "a": {"file_name": "a.json"},\n}')
    with pytest.raises(DataError, match=r"dataset_info.json:\d: .*column"):
        one("a", tmp_path)
    write("dataset_info.json", "[]")
    with pytest.raises(DataError, match="must be an object that names datasets"):
        one("a", tmp_path)
    (tmp_path / "dataset_info.json").unlink()
    with pytest.raises(OptionError, match=r"'a' is no file, and there is no .*dataset_info.json"):
        one("a", tmp_path)


def test_files_on_other_file_systems_are_read_through_fsspec(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://rows/x.jsonl.gz", "wt", compression="gzip") as file:
        file.write('{"instruction": "a", "output": "b"}\n')
    assert rows(one("memory://rows/x.jsonl.gz", tmp_path)) == [{"instruction": "a", "output": "b"}]


def test_files_are_read_by_their_address(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http through it")
    write("web/rows.jsonl", '{"instruction": "a", "output": "b"}\n' * 3)
    handler = partial(QuietHandler, directory=tmp_path / "web")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for streaming in (False, True):
            (dataset,) = find_datasets([f"{address}/rows.jsonl"], str(tmp_path), streaming=streaming)
            assert rows(dataset) == [{"instruction": "a", "output": "b"}] * 3
        with pytest.raises(DataError, match=r"nothing\.jsonl: cannot be read"):
            one(f"{address}/nothing.jsonl", tmp_path)
        server.shutdown()
    assert len(rows(one(f"file://{tmp_path}/web/rows.jsonl", tmp_path))) == 3


def test_a_stream_of_a_hub_is_not_fetched_as_a_whole(write: Write, tmp_path: Path, folder: Path) -> None:
    write("hub/train.jsonl", '{"text": "eins"}\n{"text": "zwei"}')
    (dataset,) = find_datasets([f"hf:{tmp_path}/hub"], str(tmp_path), streaming=True)
    assert isinstance(dataset.source, HubSource) and dataset.source.streaming
    assert rows(dataset) == [{"text": "eins"}, {"text": "zwei"}]
    (dataset,) = find_datasets(["modelscope"], str(folder), streaming=True)
    with pytest.raises(OptionError, match="streaming: ms:someone/rows: rows of ModelScope are not streamed yet"):
        rows(dataset)


def test_an_entry_may_name_a_file_on_another_file_system(write: Write, tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://cloud/x.csv", "wt") as file:
        file.write("instruction,output\na,b\n")
    write("dataset_info.json", {"cloud": {"cloud_file_name": "memory://cloud/x.csv"}})
    assert rows(one("cloud", tmp_path)) == [{"instruction": "a", "output": "b"}]


def test_a_dataset_of_modelscope_says_what_to_install(folder: Path) -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[modelscope\]'"):
        rows(one("modelscope", folder))


def test_an_address_says_what_to_install(tmp_path: Path) -> None:
    if importlib.util.find_spec("s3fs") is not None:
        pytest.skip("s3fs is installed")
    with pytest.raises(MissingExtra, match=r"s3://b/x\.json: needs a package: pip install s3fs"):
        rows(one("s3://b/x.json", tmp_path))


def test_an_entry_with_both_hubs_asks_the_one_the_environment_prefers(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("dataset_info.json", {"both": {"hf_hub_url": "a/b", "ms_hub_url": "c/d"}})
    source = one("both", tmp_path).source
    assert isinstance(source, HubSource) and (source.hub, source.url) == ("hf", "a/b")
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    source = one("both", tmp_path).source
    assert isinstance(source, HubSource) and (source.hub, source.url) == ("ms", "c/d")


def test_local_files_never_import_the_library_for_hubs(folder: Path) -> None:
    code = (
        "import sys; from tunesmith.data.reading.sources import find_datasets\n"
        f"(d,) = find_datasets(['rows'], {str(folder)!r})\n"
        "assert len(list(d.source.read())) == 3\n"
        "assert not {'datasets', 'torch', 'transformers', 'pyarrow', 'fsspec'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
