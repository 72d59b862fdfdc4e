"""Samples that are read while training: the same as prepared ones, from any place, and no more of them than are needed."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_formats import ChatML
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.batching.batches import Window
from tunesmith.data.batching.division import FILLER, Division
from tunesmith.data.pipeline import Prepared, prepare
from tunesmith.data.reading.files import Meter, Row
from tunesmith.data.reading.sources import FileSource
from tunesmith.data.streaming.stream import Place
from tunesmith.log import DataError

Write = Callable[[str, Any], Path]
Prepare = Callable[..., Prepared]
Rows = list[list[int]]


def alpaca(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"instruction": f"question {n}", "input": "", "output": f"answer {n} {'and more ' * (n % 7)}"}
        for n in range(start, start + count)
    ]


@pytest.fixture
def prepared(tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Groups are of 8 rows, filled ones of 20."""
    monkeypatch.setattr("tunesmith.data.streaming.stream.GROUP_ROWS", 8)
    monkeypatch.setattr("tunesmith.data.streaming.stream.FILLED_GROUP_ROWS", 20)

    def run(*names: object, stage: str = "sft", seed: int = 3, **options: Any) -> Prepared:
        wanted = {"streaming": True, "buffer_size": 10, "disable_cache": True} | options
        cfg = DataConfig(dataset=[str(name) for name in names], dataset_dir=str(tmp_path), **wanted)
        chat_format = None if stage == "pt" else ChatML()
        return prepare(cfg, stage=stage, seed=seed, tokenizer=tiny_tokenizer, chat_format=chat_format)

    return run


def division(rows: int = 4, **how: Any) -> Division:
    return Division(**({"batch_size": rows, "accumulation": 1, "ranks": 1, "seed": 3, "shuffle": True} | how))


def windows(
    data: Prepared, count: int, step: int = 0, place: tuple[int, ...] = (), rank: int = 0, **how: Any
) -> list[Window]:
    feed = data.feed(division(**how))
    return list(islice(feed.windows(step, place, rank=rank, pad_id=0), count))


def tokens(window: Window) -> Rows:
    """The real tokens of each row in a window."""
    return [
        ids[mask.bool()].tolist()
        for batch in window.batches
        for row, ids, mask in zip(batch.rows, batch.input_ids, batch.attention_mask, strict=True)
        if row != FILLER
    ]


def rows(data: Prepared, count: int) -> list[str]:
    """File and row of the first `count` samples of a stream."""
    feed = data.feed(division(1))
    return [window.where(0) for window in islice(feed.windows(0, (), rank=0, pad_id=0), count)]


def test_every_row_comes_once_in_each_epoch_and_each_epoch_is_another_order(prepared: Prepare, write: Write) -> None:
    data = prepared(write("a.json", alpaca(21)), write("b.json", alpaca(9)))
    epochs = np.array(rows(data, 90)).reshape(3, 30).tolist()
    assert all(len(set(epoch)) == 30 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


WAYS: dict[str, dict[str, Any]] = {
    "conversations": {},
    "packed": {"packing": True, "cutoff_len": 128},
    "texts": {"stage": "pt", "cutoff_len": 32},
    "two processes": {"preprocessing_num_workers": 2, "preprocessing_batch_size": 3},
    "unshuffled": {"disable_shuffling": True},
    "interleaved": {"mix_strategy": "interleave_over", "interleave_probs": [0.3, 0.7]},
    "some held out": {"val_size": 5},
    "so many tokens": {"way": "token_budget", "row_tokens": 60},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_goes_on_from_behind_any_window(prepared: Prepare, write: Write, way: str) -> None:
    options = dict(WAYS[way])
    how = {name: options.pop(name) for name in ("way", "row_tokens") if name in options}
    names = write("a.json", alpaca(19)), write("b.json", alpaca(6, start=50))
    straight = windows(prepared(*names, **options), 12, **how)
    again = prepared(*names, **options)
    for step in (1, 3, 6, 7, 9, 11):
        rest = windows(again, 12 - step, step, straight[step - 1].place, **how)
        assert [tokens(each) for each in rest] == [tokens(each) for each in straight[step:]]
        assert [each.place for each in rest] == [each.place for each in straight[step:]]


@pytest.mark.parametrize("way", ["conversations", "packed", "texts"])
def test_unshuffled_rows_are_those_that_are_prepared_before(prepared: Prepare, write: Write, way: str) -> None:
    options = WAYS[way] | {"disable_shuffling": True}
    names = write("a.json", alpaca(13)), write("b.json", alpaca(6, start=50))
    before = prepared(*names, **options, streaming=False)
    count = len(before.train)
    streamed = windows(prepared(*names, **options), count // 4)
    expected = [before.train[index].input_ids.tolist() for index in range(count // 4 * 4)]
    assert [row for window in streamed for row in tokens(window)] == expected


def test_several_ranks_share_each_window(prepared: Prepare, write: Write) -> None:
    name = write("a.json", alpaca(30))
    together = windows(prepared(name), 9, rows=6)
    ranks = [windows(prepared(name), 9, rows=2, accumulation=1, ranks=3, rank=rank) for rank in range(3)]
    for alone, *shares in zip(together, *ranks, strict=True):
        assert sorted(row for share in shares for row in tokens(share)) == sorted(tokens(alone))
        assert {share.place for share in shares} == {alone.place}


def test_windows_go_on_over_the_end_of_an_epoch(prepared: Prepare, write: Write) -> None:
    data = prepared(write("a.json", alpaca(10)))
    found = windows(data, 5)
    assert [len(tokens(window)) for window in found] == [4] * 5
    feed = data.feed(division())
    assert feed.per_epoch is None
    assert [Place(*window.place).epoch for window in found] == [0, 0, 1, 1, 1]
    assert [feed.epochs(0, window.place) for window in found] == pytest.approx([0, 0, 1.2, 1.6, 2.0])


def test_packed_rows_are_well_filled_and_shuffled(prepared: Prepare, write: Write) -> None:
    data = prepared(write("a.json", alpaca(40)), packing=True, cutoff_len=256)
    assert data.report.fill_rate is not None and data.report.fill_rate > 0.7
    sizes = [len(row) for window in windows(data, 8, rows=1) for row in tokens(window)]
    assert sizes != sorted(sizes, reverse=True)
    assert all(batch.packed for window in windows(data, 2, rows=1) for batch in window.batches)


def test_no_more_is_read_than_is_needed(prepared: Prepare, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Counter[str]()
    original = FileSource.read

    def counted(source: FileSource, meter: Meter | None = None) -> Iterator[Row]:
        for row in original(source, meter):
            read[row.file] += 1
            yield row

    name = write("a.json", alpaca(4000))
    monkeypatch.setattr(FileSource, "read", counted)
    data = prepared(name, disable_shuffling=True)
    before = read["a.json"]
    assert before < 30
    windows(data, 10)
    assert read["a.json"] - before <= 10 * 4 + 8 + 1


def test_held_out_prompts_are_never_trained_and_are_counted(prepared: Prepare, write: Write) -> None:
    twice = [{"instruction": f"question {n % 10}", "input": "", "output": f"answer {n}"} for n in range(40)]
    data = prepared(write("a.json", twice), val_size=3, seed=5)
    evaluated = data.evals["eval"]
    assert len(evaluated) == 3 and data.report.evaluated == 3
    numbers = {int(evaluated.where(index).split()[-1]) - 1 for index in range(3)}
    prompts = {number % 10 for number in numbers}
    expected = {f"a.json row {n + 1}" for n in range(40) if n % 10 not in prompts}
    feed = data.feed(division(1))
    stream = feed.windows(0, (), rank=0, pad_id=0)
    found = [window.where(0) for window in islice(stream, len(expected))]
    assert set(found) == expected and len(found) == len(expected)
    assert feed.lines() == ["rows read     40 while training", f"held out      {40 - len(expected)} that ask what rows to evaluate on do"]  # fmt: skip
    next(stream)
    assert feed.lines()[0] == "rows read     40 while training, and again in later epochs"


def test_all_rows_held_out_leave_nothing(prepared: Prepare, write: Write) -> None:
    name = write("a.json", alpaca(12))
    with pytest.raises(DataError, match="val_size: 20 of 12 rows leaves nothing to train on"):
        prepared(name, val_size=20)
    with pytest.raises(DataError, match=r"no token would be trained: 12 rows were read .*12 held out by val_size"):
        prepared(name, val_size=12)


def test_rows_that_come_again_are_evaluated_once(prepared: Prepare, write: Write) -> None:
    names = write("a.json", alpaca(30)), write("b.json", alpaca(2, start=90))
    evaluated = prepared(*names, mix_strategy="interleave_over", val_size=8).evals["eval"]
    assert len({evaluated.where(index) for index in range(8)}) == len(evaluated) == 8


def test_what_is_known_before_is_told_as_such(prepared: Prepare, write: Write) -> None:
    name = write("a.json", [*alpaca(5), {"instruction": "q", "input": "", "output": ""}, *alpaca(30, start=9)])
    data = prepared(name, disable_shuffling=True)
    assert data.report.lines()[:3] == [
        f"rows read     the first 8 ({name} 8)", "rows kept     7 to train on", "dropped       empty answer: 1 (a.json row 6)",
    ]  # fmt: skip
    assert len(data.train) == 7


def test_what_is_lost_while_training_is_told_once(prepared: Prepare, write: Write) -> None:
    data = prepared(write("a.json", [*alpaca(9), {"instruction": "q", "input": "", "output": ""}]), cutoff_len=40)
    feed = data.feed(division(1))
    list(islice(feed.windows(0, (), rank=0, pad_id=0), 40))
    read, dropped, cut = feed.lines()
    assert read == "rows read     10 while training, and again in later epochs"
    assert dropped == "dropped       empty answer: 1 (a.json row 10)"
    assert cut.startswith("cut           to cutoff_len 40: ")


def test_strict_refuses_a_row_when_it_is_reached(prepared: Prepare, write: Write) -> None:
    name = write("a.json", [*alpaca(20), {"instruction": "q", "input": "", "output": ""}])
    data = prepared(name, strict=True, disable_shuffling=True)
    with pytest.raises(DataError, match=r"a.json row 21: empty answer \(strict: true\)"):
        windows(data, 9)


def test_data_of_which_nothing_can_be_trained_is_refused(prepared: Prepare, write: Write) -> None:
    empty = [{"instruction": "q", "input": "", "output": ""}] * 100
    with pytest.raises(DataError, match=r"no token would be trained: 64 rows were read .*empty answer: 64"):
        prepared(write("a.json", empty), disable_shuffling=True)
    assert prepared(write("b.json", [*empty[:20], *alpaca(9)]), disable_shuffling=True).report.kept == 4


def test_each_dataset_is_read_as_its_own_shape_says(prepared: Prepare, write: Write) -> None:
    talk = [{"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": "ho"}]} for n in range(9)]  # fmt: skip
    names = write("a.json", alpaca(9)), write("b.json", talk)
    data = prepared(*names, mix_strategy="interleave_once", placeholders={"x": "y"})
    assert Counter(row.split()[0] for row in rows(data, 18)) == {"a.json": 9, "b.json": 9}
    assert data.report.read.keys() == {str(name) for name in names}


def test_the_fingerprint_changes_with_what_is_trained_and_in_which_order(prepared: Prepare, write: Write) -> None:
    name = write("a.json", alpaca(30))
    base = prepared(name).fingerprint
    assert base == prepared(name, preprocessing_batch_size=3, max_reported_rows=1).fingerprint
    changes: list[dict[str, Any]] = [
        {"seed": 4}, {"buffer_size": 11}, {"disable_shuffling": True}, {"cutoff_len": 30}, {"val_size": 2}, {"max_samples": 29},
    ]  # fmt: skip
    assert base not in {prepared(name, **change).fingerprint for change in changes}
    write("a.json", alpaca(31))
    assert prepared(name).fingerprint != base
