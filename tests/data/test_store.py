"""Prepared rows are found again exactly when they would come out the same, and a store is whole or not there."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_formats import ChatML
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.keeping import arrays, store
from tunesmith.data.keeping.arrays import Rows
from tunesmith.data.pipeline import Prepared, prepare
from tunesmith.log import OptionError

Write = Callable[[str, Any], Path]
Run = Callable[..., tuple[Prepared, str]]
DATA = [{"instruction": f"question {n}", "output": f"answer {n}"} for n in range(6)] + [
    {"instruction": "a", "output": ""}
]


@pytest.fixture
def run(tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Prepare datasets and return what came out and what was said."""

    def run(
        *names: object, tokenizer: PreTrainedTokenizerBase = tiny_tokenizer, **options: Any
    ) -> tuple[Prepared, str]:
        capsys.readouterr()
        cfg = DataConfig(dataset=[str(name) for name in names], dataset_dir=str(tmp_path), **options)
        prepared = prepare(cfg, stage="sft", seed=1, tokenizer=tokenizer, chat_format=ChatML())
        said = [line for line in capsys.readouterr().err.splitlines() if "read as alpaca" not in line]
        return prepared, "\n".join(said)

    return run


def contents(prepared: Prepared) -> list[tuple[list[int], list[int], str]]:
    samples = prepared.train
    found = ((samples[index], samples.where(index)) for index in range(len(samples)))
    return [(sample.input_ids.tolist(), sample.labels.tolist(), where) for sample, where in found]


def test_the_second_time_is_a_hit_with_the_same_samples_and_report(run: Run, write: Write) -> None:
    path = write("a.json", DATA)
    first, said = run(path)
    assert said == "note: prepared data: miss: not prepared before"
    again, said = run(path)
    assert said.startswith("note: prepared data: cache hit (")
    assert contents(first) == contents(again) and first.fingerprint == again.fingerprint
    assert first.report.lines() == again.report.lines() and "empty answer: 1 (a.json row 7)" in str(
        again.report.lines()
    )


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"cutoff_len": 1024}, {"cutoff_len": 2048}, "cutoff_len 1024 -> 2048"),
        ({}, {"mask_history": True, "train_roles": ["user"]}, "mask_history false -> true, train_roles"),
        ({}, {"placeholders": {"name": "Ada"}}, 'placeholders {} -> {"name": "Ada"}'),
        ({}, {"max_samples": 3}, "max_samples null -> 3"),
    ],
)
def test_a_miss_names_what_differs(
    before: dict[str, Any], now: dict[str, Any], told: str, run: Run, write: Write
) -> None:
    path = write("a.json", DATA)
    run(path, **before)
    assert told in run(path, **now)[1]
    assert "cache hit" in run(path, **before)[1]
    assert "cache hit" in run(path, **now)[1]


@pytest.mark.parametrize(
    "options",
    [
        {"val_size": 0.5}, {"preprocessing_batch_size": 2}, {"disable_shuffling": True}, {"max_reported_rows": 1},
    ],
)  # fmt: skip
def test_options_that_do_not_shape_rows_share_a_store(options: dict[str, Any], run: Run, write: Write) -> None:
    path = write("a.json", DATA)
    run(path)
    assert "cache hit" in run(path, **options)[1]


def test_changed_data_columns_and_tokenizers_are_a_miss(
    run: Run, write: Write, tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    path = write("a.json", DATA)
    run(path)
    write("a.json", DATA[:-1])
    assert f"miss: data of {path} changed" in run(path)[1]
    other = AutoTokenizer.from_pretrained(tiny_model)
    assert "miss: tokenizer changed" in run(path, tokenizer=other)[1]
    write("dataset_info.json", {"mine": {"file_name": "a.json"}})
    run("mine")
    write("dataset_info.json", {"mine": {"file_name": "a.json", "columns": {"prompt": "output", "response": "output"}}})
    assert "miss: columns of mine changed" in run("mine")[1]
    assert "miss: num_samples of mine null -> 2" in run("mine#2")[1]
    run("mine#2", "mine#3")
    assert "miss: num_samples of mine (number 1) 2 -> 1" in run("mine#1", "mine#3")[1]


def test_the_cache_may_be_renewed_or_left_alone(run: Run, write: Write, own_cache: Path) -> None:
    path = write("a.json", DATA)
    off, said = run(path, disable_cache=True)
    assert said == "" and not own_cache.exists()
    assert contents(off) == contents(run(path)[0])
    assert run(path, overwrite_cache=True)[1] == "note: prepared data: miss: overwrite_cache"
    assert "cache hit" in run(path)[1]


@pytest.mark.parametrize("damage", ["shorten", "remove", "meta"])
def test_a_damaged_store_is_prepared_anew(damage: str, run: Run, write: Write, own_cache: Path) -> None:
    path = write("a.json", DATA)
    whole = contents(run(path)[0])
    ids = next(own_cache.rglob("ids.bin"))
    if damage == "shorten":
        os.truncate(ids, ids.stat().st_size - 4)
    elif damage == "remove":
        ids.unlink()
    else:
        (ids.parent / store.META).write_text("{broken")
    again, said = run(path)
    assert "miss" in said and contents(again) == whole
    assert "cache hit" in run(path)[1]


def test_only_the_stores_used_last_are_kept(run: Run, write: Write, own_cache: Path) -> None:
    path = write("a.json", DATA)
    for cutoff_len in range(30, 30 + store.KEPT + 2):
        run(path, cutoff_len=cutoff_len)
    assert len(list(own_cache.rglob(store.META))) == store.KEPT
    assert "cache hit" in run(path, cutoff_len=30 + store.KEPT + 1)[1]


def test_a_cache_that_cannot_be_written_is_told_and_done_without(
    run: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(write("file", "in the way")))
    prepared, said = run(write("a.json", DATA))
    assert len(prepared.train) == 6 and "is not kept, as" in said


def test_a_named_folder_is_written_read_and_refused_when_it_does_not_fit(
    run: Run, write: Write, tmp_path: Path
) -> None:
    path, folder = write("a.json", DATA), tmp_path / "named"
    first, said = run(path, tokenized_path=str(folder))
    assert "prepared data written to" in said and (folder / "train" / store.META).is_file()
    again, said = run(path, tokenized_path=str(folder))
    assert "prepared data read from" in said and contents(again) == contents(first)
    with pytest.raises(
        OptionError, match=r"tokenized_path: .* in another way: cutoff_len 2048 -> 64; .*overwrite_cache"
    ):
        run(path, tokenized_path=str(folder), cutoff_len=64)
    run(path, tokenized_path=str(folder), cutoff_len=64, overwrite_cache=True)
    assert "read from" in run(path, tokenized_path=str(folder), cutoff_len=64)[1]


@pytest.mark.parametrize("place", ["a.txt", "a.txt/x", "/proc/x", "/dev/null"])
def test_a_named_folder_that_can_be_none_is_told(run: Run, write: Write, tmp_path: Path, place: str) -> None:
    write("a.txt", "precious")
    with pytest.raises(OptionError, match=r"tokenized_path: .* (is a file, and must be|can't be made: )"):
        run(write("a.json", DATA), tokenized_path=str(tmp_path / place))


def test_a_named_folder_with_other_files_is_left_alone(run: Run, write: Write, tmp_path: Path) -> None:
    write("named/train/thesis.txt", "precious")
    with pytest.raises(OptionError, match="holds files that are no prepared data"):
        run(write("a.json", DATA), tokenized_path=str(tmp_path / "named"))
    with pytest.raises(OptionError, match="holds files that are no prepared data"):
        run(write("a.json", DATA), tokenized_path=str(tmp_path / "named"), overwrite_cache=True)
    assert (tmp_path / "named/train/thesis.txt").read_text() == "precious"


def rows(count: int) -> Rows:
    ones = np.ones(count, np.int32)
    return Rows(ones * 7, ones == 1, ones, ones * 0, ones * 0, np.arange(1, count + 1, dtype=np.int32),
                ones.astype(np.uint64), ones.astype(np.uint8), ["a.json"])  # fmt: skip


def test_mapped_rows_have_the_fingerprint_of_rows_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "READ_AT_ONCE", 2)
    parts = [rows(3), rows(4)]
    mapped = store.cached("mine", {"a": 1}, lambda: iter([*parts, {}]), anew=False).rows
    assert isinstance(mapped.ids, np.memmap)
    assert arrays.ArraySamples(mapped).fingerprint() == arrays.ArraySamples(arrays.joined(parts)).fingerprint()
    assert mapped.ids.tolist() == [7] * 7


def prepare_and_die() -> Iterator[Rows | dict[str, Any]]:
    yield rows(3)
    os.kill(os.getpid(), signal.SIGKILL)


def prepare_slowly(started: Any, go_on: Any) -> Iterator[Rows | dict[str, Any]]:
    yield rows(2)
    started.set()
    go_on.wait(30)
    yield rows(1)
    yield {"by": os.getpid()}


def die_while_preparing() -> None:
    store.cached("mine", {"a": 1}, prepare_and_die, anew=False)


def prepare_while_others_wait(started: Any, go_on: Any, found: Any) -> None:
    stored = store.cached("mine", {"a": 1}, lambda: prepare_slowly(started, go_on), anew=False)
    found.put((len(stored.rows.ids), stored.report["by"]))


def test_a_process_killed_while_preparing_leaves_no_store_and_no_lock(own_cache: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_while_preparing)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert not list(own_cache.rglob(store.META)) and list(own_cache.rglob("*.new-*"))
    stored = store.cached("mine", {"a": 1}, lambda: iter([rows(2), {"by": 0}]), anew=False)
    assert len(stored.rows.ids) == 2 and not list(own_cache.rglob("*.new-*"))


def test_processes_at_the_same_time_prepare_once(own_cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    started, go_on, found = context.Event(), context.Event(), context.Queue()
    processes = [context.Process(target=prepare_while_others_wait, args=(started, go_on, found)) for _ in range(3)]
    for process in processes:
        process.start()
    assert started.wait(30)
    go_on.set()
    results = [found.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
    assert len(set(results)) == 1 and results[0][0] == 3


def test_an_error_while_preparing_leaves_nothing(own_cache: Path) -> None:
    def broken() -> Iterator[Rows | dict[str, Any]]:
        yield rows(2)
        raise ValueError("a bad row")

    with pytest.raises(ValueError, match="a bad row"):
        store.cached("mine", {"a": 1}, broken, anew=False)
    assert not list(own_cache.rglob("*.bin"))


def test_files_of_several_parts_keep_their_names(own_cache: Path) -> None:
    first, second = rows(1), rows(2)
    second.files = ["b.json"]
    for stored in (
        store.cached("mine", {"a": 1}, lambda: iter([first, second, first, {}]), anew=False),
        store.in_memory(lambda: iter([first, second, first, {}])),
    ):
        assert [stored.rows.files[file] for file in stored.rows.file_of] == ["a.json", "b.json", "b.json", "a.json"]


def test_differences_name_values_and_hide_hashes() -> None:
    before = {"a": 1, "b": "sha256:1", "c": None, "gone": 0}
    now = {"a": 2, "b": "sha256:2", "c": "x", "new": [1]}
    assert store.differences(before, now) == [
        "a 1 -> 2",
        "b changed",
        'c null -> "x"',
        "new null -> [1]",
        "gone 0 -> null",
    ]
    assert store.differences(now, json.loads(json.dumps(now))) == []
