"""What is shown of a row is what is trained on: the same tokens and labels, each with the one who says it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data import pipeline
from tunesmith.data.chat_format import chat_format
from tunesmith.data.reading.formats import Reader
from tunesmith.data.reading.sources import find_datasets
from tunesmith.data.sample import IGNORED
from tunesmith.data.telling.inspect import SeenRow, Witness, find_row, see
from tunesmith.log import DataError, OptionError

LONG = "the quick brown fox jumps over the lazy dog " * 12
ROWS: list[dict[str, Any]] = [
    {"instruction": "Hi <|im_end|> there", "output": "Hello, I am Ada.", "system": "Be kind."},
    {"instruction": LONG, "output": "A short answer."},
    {"instruction": "And now?", "output": LONG, "history": [["First?", "Yes."], [LONG, "No."]]},
    {"instruction": "Empty", "output": ""},
]
COLUMNS = {"prompt": "instruction", "response": "output", "system": "system", "history": "history"}

Seen = Callable[..., list[SeenRow]]


@pytest.fixture
def info(write: Callable[[str, Any], Path]) -> Path:
    write("rows.json", ROWS)
    write("other.json", ROWS[:1])
    described = {"rows": {"file_name": "rows.json", "columns": COLUMNS}, "other": {"file_name": "other.json"}}
    return write("dataset_info.json", described).parent


def options(folder: Path, **more: Any) -> DataConfig:
    return DataConfig(dataset=["rows"], dataset_dir=str(folder), **{"template": "qwen", "cutoff_len": 120, **more})


def seen(cfg: DataConfig, tokenizer: PreTrainedTokenizerBase) -> list[SeenRow]:
    dataset = find_datasets(cfg.dataset, cfg.dataset_dir)[0]
    witness = Witness(tokenizer, chat_format(cfg, tokenizer), cfg)
    return [see(row, Reader(dataset.shape), "conversation", witness) for row in dataset.source.read()]


@pytest.mark.parametrize("template", ["qwen", "auto", "llama2", "gemma", "empty", "deepseek3"])
@pytest.mark.parametrize("overflow", ["truncate", "split", "drop"])
def test_the_tokens_shown_are_those_trained_on(
    info: Path, tiny_tokenizer: PreTrainedTokenizerBase, template: str, overflow: str
) -> None:
    cfg = options(info, template=template, overflow=overflow)
    chat = chat_format(cfg, tiny_tokenizer)
    prepared = pipeline.prepare(cfg, stage="sft", seed=1, tokenizer=tiny_tokenizer, chat_format=chat).train
    samples = [(row.where, sample) for row in seen(cfg, tiny_tokenizer) for sample in row.samples]
    assert len(samples) == len(prepared) > 0
    for index, (where, sample) in enumerate(samples):
        assert where == prepared.where(index)
        assert sample.ids.tolist() == prepared[index].input_ids.tolist()
        assert sample.trained[1:].tolist() == (prepared[index].labels[1:] != IGNORED).tolist()
        assert len(sample.speakers) == len(sample.ids)


def words_of(row: SeenRow, speaker: str, tokenizer: PreTrainedTokenizerBase) -> str:
    sample = row.samples[0]
    return tokenizer.decode(
        [id for id, who in zip(sample.ids.tolist(), sample.speakers, strict=True) if who == speaker]
    )


@pytest.mark.parametrize("template", ["qwen", "auto"])
def test_each_token_is_said_by_its_speaker(info: Path, tiny_tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    row = seen(options(info, template=template, cutoff_len=2048), tiny_tokenizer)[0]
    assert words_of(row, "system", tiny_tokenizer) == "Be kind."
    assert words_of(row, "user", tiny_tokenizer) == "Hi <|im_end|> there"
    assert words_of(row, "assistant", tiny_tokenizer) == "Hello, I am Ada."
    assert words_of(row, "template", tiny_tokenizer).startswith("<|im_start|>system\n<|im_end|>")
    turns = seen(options(info, template=template, cutoff_len=2048), tiny_tokenizer)[2]
    assert words_of(turns, "user", tiny_tokenizer) == f"First?{LONG.strip() if template == 'auto' else LONG}And now?"


def test_cuts_are_shown_where_they_are(info: Path, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    whole, cut = (seen(options(info, cutoff_len=limit), tiny_tokenizer)[1] for limit in (2048, 120))
    assert whole.whole_tokens is None and not whole.samples[0].gaps
    [(place, missing)] = cut.samples[0].gaps.items()
    ids = whole.samples[0].ids
    assert cut.whole_tokens == len(ids) == len(cut.samples[0].ids) + missing
    assert np.array_equal(np.delete(ids, slice(place, place + missing)), cut.samples[0].ids)


def test_a_row_that_is_left_out_says_why(info: Path, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    dropped = seen(options(info), tiny_tokenizer)[3]
    assert (dropped.where, dropped.samples, dropped.dropped) == ("rows.json row 4", [], "empty answer")


def test_texts_are_said_by_nobody(write: Callable[[str, Any], Path], tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    cfg = DataConfig(dataset=[str(write("story.txt", "Once upon a time.\nThe end.\n"))])
    dataset = find_datasets(cfg.dataset, cfg.dataset_dir)[0]
    witness = Witness(tiny_tokenizer, None, cfg)
    first = next(dataset.source.read())
    [sample] = see(first, Reader(dataset.shape), "text", witness).samples
    assert sample.speakers == ["text"] * (len(sample.ids) - 1) + ["template"]
    assert sample.trained.tolist() == [False] + [True] * (len(sample.ids) - 1)


def test_rows_are_found_by_their_names(info: Path) -> None:
    datasets = find_datasets(["rows", "other"], str(info))
    assert find_row(datasets, "2")[1].where == "rows.json row 2"
    assert find_row(datasets, "other:1")[1].where == "other.json row 1"
    assert find_row(datasets, "other.json:1")[0].name == "other"
    with pytest.raises(OptionError, match="--row: must be a row's number from 1 on, or NAME:NUMBER, got 'x'"):
        find_row(datasets, "x")
    with pytest.raises(DataError, match="--row: there is no row 9 in rows; datasets: rows, other"):
        find_row(datasets, "9")
