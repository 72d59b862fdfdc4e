"""From names to samples: counted, reported, seeded, and the same however many processes prepare."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from chat_formats import ChatML
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.batching.batches import windows
from tunesmith.data.batching.division import Division
from tunesmith.data.keeping.arrays import ArraySamples
from tunesmith.data.pipeline import Prepared, prepare
from tunesmith.data.reading.pairs import JudgedSamples, PairSamples
from tunesmith.data.sample import IGNORED, Samples
from tunesmith.log import DataError, OptionError

Write = Callable[[str, Any], Path]
Prepare = Callable[..., Prepared]


def alpaca(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"instruction": f"question {n}", "input": "", "output": f"answer {n}"} for n in range(start, start + count)]


@pytest.fixture
def prepared(tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Prepare:
    def run(*names: object, stage: str = "sft", seed: int = 3, **options: Any) -> Prepared:
        more = {key: options.pop(key) for key in ("search_folders", "on_progress") if key in options}
        cfg = DataConfig(dataset=[str(name) for name in names], dataset_dir=str(tmp_path), **options)
        chat_format = None if stage == "pt" else ChatML()
        return prepare(cfg, stage=stage, seed=seed, tokenizer=tiny_tokenizer, chat_format=chat_format, **more)

    return run


def rows(samples: Samples) -> list[tuple[list[int], list[int], str]]:
    found = ((samples[index], samples.where(index)) for index in range(len(samples)))
    return [(sample.input_ids.tolist(), sample.labels.tolist(), where) for sample, where in found]


def test_rows_become_samples_in_the_order_of_the_data(
    prepared: Prepare, write: Write, tiny_tokenizer: PreTrainedTokenizerBase
) -> None:
    first, second = write("a.json", alpaca(3)), write("b.jsonl", '{"instruction": "x", "output": "y"}')
    data = prepared(first, second)
    assert [data.train.where(index) for index in range(4)] == [
        "a.json row 1", "a.json row 2", "a.json row 3", "b.jsonl row 1",
    ]  # fmt: skip
    sample = data.train[1]
    assert tiny_tokenizer.decode(sample.input_ids[sample.labels != IGNORED]) == "answer 1<|im_end|>\n"
    assert data.train.lengths.tolist() == [len(data.train[index].input_ids) for index in range(4)]
    assert data.evals == {}
    assert data.report.read == {str(first): 3, str(second): 1}


def test_the_report_counts_every_row_and_names_the_first_ones(prepared: Prepare, write: Write) -> None:
    bad = [{"instruction": "q", "output": ""}] * 7 + [{"instruction": "q", "output": None}]
    long = {"instruction": "long " * 50, "output": "short"}
    report = prepared(write("a.json", [*alpaca(4), *bad, long]), cutoff_len=40, max_reported_rows=2).report
    assert (sum(report.read.values()), report.kept, report.tallies.cut.count) == (13, 5, 1)
    assert {reason: tally.count for reason, tally in report.tallies.dropped.items()} == {
        "empty answer": 7,
        "null in 'output'": 1,
    }
    assert report.tallies.dropped["empty answer"].rows == ["a.json row 5", "a.json row 6"]
    text = "\n".join(report.lines())
    assert "dropped       empty answer: 7 (a.json row 5, a.json row 6, ...)" in text
    assert "cut           to cutoff_len 40: 1 (a.json row 13: " in text
    assert report.longest == 40 and len(report.lines()) < 24


def test_the_report_counts_tokens_as_batches_do(prepared: Prepare, write: Write) -> None:
    data = prepared(write("a.json", alpaca(9)))
    division = Division(4, 1, 1, seed=0, shuffle=True)
    batches = [b for window in windows(data.train, division, epochs=1) for b in window.batches]
    assert data.report.tokens == sum(batch.tokens for batch in batches)
    assert data.report.trained_tokens == sum(batch.loss_tokens for batch in batches)


def test_strict_refuses_what_would_be_dropped_or_cut(prepared: Prepare, write: Write) -> None:
    empty = write("a.json", [*alpaca(2), {"instruction": "q", "output": ""}])
    with pytest.raises(DataError, match=r"a.json row 3: empty answer \(strict: true\)"):
        prepared(empty, strict=True)
    with pytest.raises(DataError, match=r"b.json row 1: has \d+ tokens, over cutoff_len \(strict: true\)"):
        prepared(write("b.json", [{"instruction": "long " * 50, "output": "a"}]), strict=True, cutoff_len=40)
    assert len(prepared(write("c.json", alpaca(2)), strict=True).train) == 2


def test_several_processes_give_what_one_gives(prepared: Prepare, write: Write) -> None:
    data = [*alpaca(30), {"instruction": "q", "output": ""}, *alpaca(10, 30), {"instruction": "l " * 99, "output": "s"}]
    path = write("a.json", data)
    one = prepared(path, cutoff_len=60, preprocessing_batch_size=4, val_size=5.0)
    two = prepared(path, cutoff_len=60, preprocessing_batch_size=4, val_size=5.0, preprocessing_num_workers=2)
    assert rows(one.train) == rows(two.train) and rows(one.evals["eval"]) == rows(two.evals["eval"])
    assert one.fingerprint == two.fingerprint and one.report.lines() == two.report.lines()


def test_more_workers_than_cores_are_told(prepared: Prepare, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(write("a.json", alpaca(2)), preprocessing_num_workers=4096)
    assert "note: preprocessing_num_workers: " in capsys.readouterr().err


def test_a_split_keeps_equal_prompts_together(prepared: Prepare, write: Write) -> None:
    data = [{"instruction": f"question {n % 10} ", "output": f"answer {n}"} for n in range(40)]
    data[3]["instruction"] = "question  3"  # equal to the others but for white space
    split = prepared(write("a.json", data), val_size=0.25)
    prompts = [
        {data[int(samples.where(index).split()[-1]) - 1]["instruction"].split()[1] for index in range(len(samples))}
        for samples in (split.train, split.evals["eval"])
    ]
    assert not prompts[0] & prompts[1] and len(split.evals["eval"]) in (8, 10)
    assert split.report.kept + split.report.evaluated == 40


def test_evaluation_data_is_joined_or_kept_apart(prepared: Prepare, write: Write) -> None:
    train, more = write("a.json", alpaca(3)), [str(write("b.json", alpaca(2, 10))), str(write("c.json", alpaca(1, 20)))]
    assert {name: len(each) for name, each in prepared(train, eval_dataset=more).evals.items()} == {"eval": 3}
    apart = prepared(train, eval_dataset=more, eval_on_each_dataset=True)
    assert {Path(name).name: len(each) for name, each in apart.evals.items()} == {"b.json": 2, "c.json": 1}
    with pytest.raises(OptionError, match=r"val_size: .* not both"):
        prepared(train, eval_dataset=more, val_size=0.5)


def test_rows_are_limited_per_dataset(prepared: Prepare, write: Write) -> None:
    first, second = write("a.json", alpaca(9)), write("b.json", alpaca(9, 20))
    assert [*prepared(first, f"{second}#2", max_samples=4).report.read.values()] == [4, 2]


def test_placeholders_are_filled_and_a_missing_value_is_told_once(
    prepared: Prepare, write: Write, tiny_tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("a.json", [{"instruction": "Who?", "output": "I am {{name}} by {{author}}."}] * 3)
    filled = prepared(path, placeholders={"name": "Ada", "author": "Charles"})
    assert "I am Ada by Charles." in tiny_tokenizer.decode(filled.train[0].input_ids)
    assert "warning" not in capsys.readouterr().err
    prepared(path)
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: placeholders")]
    assert "{{author}}, {{name}}" in warning and "placeholders: {author: ..., name: ...}" in warning


def test_data_without_a_usable_row_is_an_error(prepared: Prepare, write: Write) -> None:
    bad = write("bad.json", [{"instruction": "q", "output": ""}] * 3)
    with pytest.raises(DataError, match=r"bad.json: none of its 3 rows can be used \(empty answer: 3 \(bad.json row 1"):
        prepared(write("a.json", alpaca(3)), bad)
    with pytest.raises(OptionError, match="dataset: names no data to train on"):
        prepared()


def test_data_of_another_stage_is_refused_by_name(prepared: Prepare, write: Write) -> None:
    pairs = write("pairs.json", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(OptionError, match=r"pairs.json holds preference pairs .*, and this stage needs conversations"):
        prepared(pairs)
    with pytest.raises(OptionError, match=r"a.json holds conversations, and this stage needs preference pairs"):
        prepared(write("a.json", alpaca(1)), stage="dpo")
    with pytest.raises(OptionError, match="stage: ppo is not built yet"):
        prepared(write("a.json", alpaca(1)), stage="ppo")


def test_preference_pairs_stand_together_on_one_side_of_the_split(
    prepared: Prepare, write: Write, tiny_tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(20)]
    data = prepared(write("pairs.json", rows), stage="dpo", val_size=0.2)
    assert (data.report.kept, data.report.evaluated) == (16, 4)
    for samples in (data.train, data.evals["eval"]):
        assert isinstance(samples, ArraySamples)
        pairs = PairSamples(samples)
        assert len(pairs) * 2 == len(samples)
        for index in range(len(pairs)):
            words = [
                tiny_tokenizer.decode(each.input_ids[each.labels != IGNORED])
                for each in (pairs[index].chosen, pairs[index].rejected)
            ]
            number = int(pairs.where(index).split()[-1]) - 1
            assert words == [f"good {number}<|im_end|>\n", f"bad {number}<|im_end|>\n"]
        assert pairs.lengths.sum() == samples.lengths.sum()


def test_judged_rows_keep_their_labels(prepared: Prepare, write: Write, tmp_path: Path) -> None:
    write("rows.json", [{**row, "label": index % 3 == 0} for index, row in enumerate(alpaca(9))])
    columns = {"prompt": "instruction", "response": "output", "kto_tag": "label"}
    write("dataset_info.json", {"mine": {"file_name": "rows.json", "columns": columns}})
    samples = prepared("mine", stage="kto").train
    assert isinstance(samples, ArraySamples)
    judged = JudgedSamples(samples)
    assert [judged[index].desirable for index in range(9)] == [index % 3 == 0 for index in range(9)]
    assert judged.where(4) == "rows.json row 5" and len(judged[4].sample.input_ids) == judged.lengths[4]


def test_split_conversations_are_counted(prepared: Prepare, write: Write) -> None:
    talk = {"conversations": [{"from": role, "value": "word " * 4} for role in ("human", "gpt") * 4]}
    report = prepared(write("a.json", [talk]), cutoff_len=64, overflow="split").report
    assert (report.kept, report.tallies.divided.count, report.tallies.cut.count) == (1, 1, 0) and report.samples > 1
    assert any(line.startswith("split         to fit cutoff_len 64: 1 (a.json row 1: ") for line in report.lines())


def test_plain_text_fills_blocks_with_a_short_last_one(
    prepared: Prepare, write: Write, tiny_tokenizer: PreTrainedTokenizerBase
) -> None:
    lines = [f"line {n} of a text" for n in range(20)]
    data = prepared(write("a.txt", "\n".join(lines)), stage="pt", cutoff_len=16)
    lengths = data.train.lengths.tolist()
    assert set(lengths[:-1]) == {16} and 0 < lengths[-1] <= 16
    samples = [data.train[index] for index in range(len(data.train))]
    assert all((sample.labels == sample.input_ids).all() for sample in samples)
    assert [len(sample.input_ids) for sample in samples] == lengths
    end = tiny_tokenizer.eos_token
    assert tiny_tokenizer.decode([id for s in samples for id in s.input_ids]) == "".join(line + end for line in lines)
    assert data.train.where(0) == "block from a.txt row 1" and data.report.kept == 20
    assert data.report.trained_tokens == sum(lengths) - len(lengths)


def test_plain_text_is_split_by_rows_before_it_fills_blocks(prepared: Prepare, write: Write) -> None:
    path = write("a.txt", "\n".join(f"line {n}" for n in range(20)))
    data = prepared(path, stage="pt", cutoff_len=16, val_size=0.2)
    whole = prepared(path, stage="pt", cutoff_len=16)
    assert (data.report.kept, data.report.evaluated) == (16, 4)
    assert data.train.lengths.sum() + data.evals["eval"].lengths.sum() == whole.train.lengths.sum()


def test_the_fingerprint_changes_with_what_is_trained_and_in_which_order(prepared: Prepare, write: Write) -> None:
    path = write("a.json", alpaca(9))
    same = prepared(path).fingerprint
    assert prepared(path).fingerprint == same
    others = [
        prepared(path, seed=4),
        prepared(path, disable_shuffling=True),
        prepared(path, max_samples=8),
        prepared(path, train_on_prompt=True),
        prepared(path, cutoff_len=20),
        prepared(write("b.json", alpaca(9)[::-1])),
    ]
    assert len({same, *(other.fingerprint for other in others)}) == 7


def test_progress_tells_rows_and_how_many_there_will_be(prepared: Prepare, write: Write) -> None:
    told: list[tuple[int, int]] = []
    paths = [write("a.json", alpaca(50)), write("b.json", alpaca(50, 1000))]
    prepared(*paths, preprocessing_batch_size=10, on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(10, 101, 10))
    assert told[-1] == (100, 100) and all(done <= total for done, total in told)
    told.clear()
    prepared(*paths, max_samples=5, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(5, 10), (10, 10)]


def test_the_demo_data_is_read_whole(neox: PreTrainedTokenizerBase, shared_data: Path) -> None:
    names = ["identity", "alpaca_en_demo", "alpaca_zh_demo", "glaive_toolcall_en_demo"]
    cfg = DataConfig(dataset=names, dataset_dir=str(shared_data / "demo"), cutoff_len=4096, val_size=0.1)
    data = prepare(cfg, stage="sft", seed=1, tokenizer=neox, chat_format=ChatML())
    report = data.report
    assert report.read == {names[0]: 91, names[1]: 999, names[2]: 1000, names[3]: 300}
    assert report.kept + report.evaluated == 2390 and not report.tallies.dropped and not report.tallies.cut.count
    assert report.evaluated == 239
    assert report.trained_tokens / report.tokens > 0.5
    batch = next(islice(windows(data.train, Division(2, 1, 1, seed=1, shuffle=True)), 1))
    assert batch.batches[0].input_ids.shape[0] == 2


def test_the_demo_texts_are_read_whole(neox: PreTrainedTokenizerBase, shared_data: Path) -> None:
    cfg = DataConfig(dataset=["wiki_demo", "c4_demo"], dataset_dir=str(shared_data / "demo"), cutoff_len=512)
    data = prepare(cfg, stage="pt", seed=1, tokenizer=neox, chat_format=None)
    assert data.report.read == {"wiki_demo": 30, "c4_demo": 300} and data.report.kept == 330
    assert (data.train.lengths[:-1] == 512).all()


def test_packing_fills_rows_and_says_how_full_they_are(prepared: Prepare, write: Write) -> None:
    path = write("a.json", alpaca(60))
    padded, packed = prepared(path, cutoff_len=128), prepared(path, cutoff_len=128, packing=True)
    assert len(packed.train) < len(padded.train) and packed.train.lengths.max() <= 128
    assert packed.report.tokens == padded.report.tokens
    assert packed.report.trained_tokens == padded.report.trained_tokens
    assert packed.report.kept == 60 and packed.fingerprint != padded.fingerprint
    full = packed.train.lengths.sum() / (128 * len(packed.train))
    assert f"packed        into rows of 128 tokens, {full:.1%} full" in packed.report.lines()
    assert packed.train[0].parts and not prepared(path, cutoff_len=128, packing="contaminated").train[0].parts
    with pytest.raises(OptionError, match="packing: the stage dpo compares whole answers"):
        prepared(path, stage="dpo", packing=True)


def test_interleaved_datasets_are_counted_and_told(prepared: Prepare, write: Write) -> None:
    first, second = write("a.json", alpaca(6)), write("b.json", alpaca(2, start=90))
    over = prepared(first, second, mix_strategy="interleave_over")
    assert [over.train.where(index) for index in range(12)] == [
        f"{name} row {row}" for n in range(6) for name, row in (("a.json", n + 1), ("b.json", n % 2 + 1))
    ]
    line = f"mixed         interleave_over, samples an epoch: {first} 6 of 6, {second} 6 of 2"
    assert over.report.kept == 8 and line in over.report.lines()
    assert over.report.trained_tokens == sum(int((each != IGNORED).sum()) for each in labels_of(over.train))
    drawn = prepared(f"{first}@0.9", f"{second}@0.1", mix_strategy="interleave_under")
    assert drawn.fingerprint != prepared(first, second, mix_strategy="interleave_under").fingerprint
    with pytest.raises(OptionError, match=r"eval_dataset: .*a\.json: evaluation reads every row once"):
        prepared(first, eval_dataset=[f"{first}@2"])


def test_held_out_prompts_stay_out_when_rows_are_repeated(prepared: Prepare, write: Write) -> None:
    first, second = write("a.json", alpaca(9)), write("b.json", alpaca(4, start=90))
    data = prepared(first, second, mix_strategy="interleave_over", val_size=4)
    held_out = {data.evals["eval"].where(index) for index in range(4)}
    trained = {data.train.where(index) for index in range(len(data.train))}
    assert not held_out & trained and len(held_out | trained) == 13 and len(data.train) > 9


def labels_of(samples: Samples) -> list[Any]:
    return [samples[index].labels[1:] for index in range(len(samples))]
