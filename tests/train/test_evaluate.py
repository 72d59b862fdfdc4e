"""Evaluation sets are told by their names, together or each by itself, for prepared and streamed training alike; their loss
is the mean over trained tokens however rows are batched."""

import json
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith.data.sample import IGNORED, Batch, Sample
from tunesmith.log import OptionError
from tunesmith.models import predict
from tunesmith.models.predict import Predictions, predictor
from tunesmith.train.judging.evaluate import evaluate, micro_batches
from tunesmith.train.objectives import NextToken
from tunesmith.train.stop import Interrupted

Train = Callable[..., Path]


@pytest.fixture
def questions(rows: Path, tmp_path: Path) -> Path:
    """A dataset folder with `talk` to train on, and `sums` and `birds` to evaluate on."""
    talk = json.loads((rows / "talk.json").read_text())
    parts = {"talk": talk, "sums": talk[:5], "birds": [row | {"output": "seven small blue birds"} for row in talk[5:9]]}
    folder = tmp_path / "questions"
    folder.mkdir()
    for name, part in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(part))
    (folder / "dataset_info.json").write_text(json.dumps({name: {"file_name": f"{name}.json"} for name in parts}))
    return folder


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "eval_results.json").read_text())
    return found


@pytest.mark.parametrize("streaming", [False, True])
def test_each_dataset_has_a_loss_of_its_own(train: Train, questions: Path, streaming: bool) -> None:
    shared = {"dataset_dir": questions, "eval_dataset": "sums,birds", "max_steps": 2, "streaming": streaming}
    together = results(train("together", **shared))
    apart = results(train("apart", eval_on_each_dataset=True, **shared))
    assert "eval_loss" in together and "eval_loss" not in apart
    losses = [apart["eval_sums_loss"], apart["eval_birds_loss"]]
    assert min(losses) < together["eval_loss"] < max(losses)
    logged = [json.loads(line) for line in (train("logged", eval_steps=1, eval_on_each_dataset=True, **shared) / "trainer_log.jsonl").read_text().splitlines()]  # fmt: skip
    assert [row["current_steps"] for row in logged if "eval_birds_loss" in row] == [1, 2]


def test_rows_held_out_of_a_stream_are_evaluated(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("run", streaming=True, max_steps=3, val_size=4, eval_steps=1, buffer_size=6)
    assert results(run)["eval_loss"] > 0
    assert "rows kept     17 to train on, 4 to evaluate" in capsys.readouterr().out


class Alone:
    """One of several processes, without the others: what would be summed over all is kept."""

    device = torch.device("cpu")

    def __init__(self, rank: int = 0, world_size: int = 1):
        self.rank, self.world_size = rank, world_size
        self.summed: list[float] = []

    def autocast(self) -> Any:
        return nullcontext()

    def to_device(self, batch: Batch) -> Batch:
        return batch

    def sums(self, *values: float) -> list[float]:
        self.summed = list(values)
        return self.summed


class Rows:
    """Rows of random tokens, of which the first third is not trained."""

    lengths = np.array([3, 40, 7, 1, 25, 90, 12, 12, 33, 8, 5], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        ids = np.random.default_rng(index).integers(3, 600, self.lengths[index]).astype(np.int32)
        return Sample(ids, np.where(np.arange(len(ids)) < len(ids) // 3, IGNORED, ids).astype(np.int32))

    def where(self, index: int) -> str:
        return f"row {index}"


def loaded(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def truth(tiny_model: Path) -> tuple[float, int]:
    """The loss summed over each row's trained tokens, every row asked by itself; and how many they are."""
    model, cost, weight = loaded(tiny_model).eval(), 0.0, 0
    for sample in map(Rows().__getitem__, range(len(Rows()))):
        ids, labels = torch.from_numpy(sample.input_ids).long(), torch.from_numpy(sample.labels).long()[1:]
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, :-1]
        cost += float(functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED))
        weight += int((labels != IGNORED).sum())
    return cost, weight


@pytest.mark.parametrize("no_padding", [True, False])
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(("batch_size", "ranks"), [(1, 1), (3, 1), (64, 1), (2, 3)])
def test_the_loss_is_the_mean_over_trained_tokens_however_rows_are_batched(
    tiny_model: Path, truth: tuple[float, int], no_padding: bool, merged: bool, batch_size: int, ranks: int
) -> None:
    policy, sums, steps = predictor(loaded(tiny_model), no_padding=no_padding).train(), np.zeros(2), set()
    assert policy.ragged == no_padding
    for rank in range(ranks):
        runtime: Any = Alone(rank, ranks)
        told: list[tuple[int, int]] = []
        found = evaluate(
            policy,
            NextToken(),
            Rows(),
            runtime,
            batch_size,
            0,
            merged=merged,
            on_batch=lambda *at, told=told: told.append(at),
        )
        assert told[-1][0] == told[-1][1] and len(told) == found.steps
        steps.add(found.steps)
        sums += runtime.summed[:2]  # behind them: whether somebody was asked to stop
    assert len(steps) == 1, "every process takes part in every micro-batch"
    assert sums[1] == truth[1] and sums[0] == pytest.approx(truth[0], rel=1e-5)
    assert policy.training


def test_a_signal_ends_an_evaluation_between_batches(tiny_model: Path) -> None:
    policy, told = predictor(loaded(tiny_model), no_padding=True).train(), list[int]()
    runtime: Any = Alone(0, 1)
    with pytest.raises(Interrupted) as interrupted:
        evaluate(
            policy,
            NextToken(),
            Rows(),
            runtime,
            1,
            0,
            merged=False,
            on_batch=lambda done, total: told.append(done),
            asked_to_stop=lambda: signal.SIGTERM if len(told) == 2 else None,
        )
    assert interrupted.value.signum == signal.SIGTERM
    assert told == [1, 2] and policy.training


def test_hits_are_counted_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "PLACES_AT_ONCE", 2)
    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]])
    assert Predictions(logits, None).hits(torch.tensor([1, 1, 1])) == 2
    assert Predictions(logits[:0], None).hits(torch.zeros(0, dtype=torch.int64)) == 0


def test_a_run_tells_its_accuracy(train: Train) -> None:
    run = train("run", max_steps=2, val_size=4, eval_steps=1, metrics="loss,accuracy")
    assert 0 <= results(run)["eval_accuracy"] <= 1
    state = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert sum("eval_accuracy" in row for row in state) == 2
    assert "eval_accuracy" not in results(train("other", max_steps=1, val_size=4))


@pytest.mark.parametrize("fused_loss", [True, False])
def test_accuracy_is_the_share_of_trained_tokens_that_are_the_likeliest(
    tiny_model: Path, fused_loss: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "PLACES_AT_ONCE", 5)
    model, rows = loaded(tiny_model), Rows()
    runtime: Any = Alone(0, 1)
    asked = predictor(loaded(tiny_model), fused_loss=fused_loss)
    found = evaluate(asked, NextToken(), Rows(), runtime, 4, 0, accuracy=True, on_batch=lambda *at: None)
    hits = total = 0
    for row in range(len(rows)):
        ids, labels = torch.tensor(rows[row].input_ids).long(), torch.tensor(rows[row].labels).long()[1:]
        likeliest = model(input_ids=ids[None]).logits[0, :-1].argmax(-1)
        hits, total = hits + int((likeliest == labels).sum()), total + int((labels != IGNORED).sum())
    assert found.accuracy == hits / total and found.results("eval", [])["eval_accuracy"] == hits / total


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_micro_batches_take_no_more_room_than_was_asked_for_and_are_few(padded: bool, batch_size: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 300).astype(np.int32)
    room = batch_size * int(lengths.max())
    batches = micro_batches(lengths, batch_size, rank=0, ranks=1, padded=padded, enough_tokens=1 << 20)
    taken = [max(lengths[rows]) * len(rows) if padded else lengths[rows].sum() for rows in batches]
    assert sorted(row for rows in batches for row in rows) == list(range(300))
    assert max(taken) <= room and len(batches) <= lengths.sum() / room * (1.6 if batch_size == 1 else 1.2) + 1
    small = micro_batches(lengths, batch_size, rank=0, ranks=1, padded=padded, enough_tokens=100)
    assert all(len(rows) == 1 or max(lengths[rows]) * len(rows) <= 100 or not padded for rows in small)
    assert all(len(rows) == 1 or lengths[rows].sum() <= 100 for rows in small)


def test_no_rows_have_no_micro_batches() -> None:
    assert micro_batches(np.zeros(0, np.int32), 8, rank=0, ranks=2, padded=True, enough_tokens=100) == []


def evaluated_at(run: Path) -> list[int]:
    rows = (json.loads(line) for line in (run / "trainer_log.jsonl").read_text().splitlines())
    return [row["current_steps"] for row in rows if "eval_loss" in row]


def test_what_training_begins_with_is_evaluated_where_that_is_asked_for(train: Train) -> None:
    options = {"max_steps": 4, "val_size": 4, "eval_steps": 2, "save_steps": 2, "learning_rate": 0.05}
    run = train("run", eval_on_start=True, **options)
    assert evaluated_at(run) == [0, 2, 4]
    assert results(train("without", **options)) | TIMES == results(run) | TIMES
    first = json.loads((run / "trainer_log.jsonl").read_text().splitlines()[0])["eval_loss"]
    assert first > results(run)["eval_loss"] and not (run / "checkpoint-0").exists()
    assert evaluated_at(train("run", **options | {"max_steps": 6, "eval_on_start": True})) == [0, 2, 4, 6]


TIMES = {"eval_runtime": 0, "eval_samples_per_second": 0, "eval_steps_per_second": 0}


def test_the_first_evaluations_are_left_out(train: Train) -> None:
    options = {"val_size": 4, "max_steps": 6}
    assert evaluated_at(train("steps", eval_steps=1, eval_delay=4, **options)) == [4, 5, 6]
    assert evaluated_at(train("epochs", eval_strategy="epoch", eval_delay=2, **options)) == [6]


def test_rows_that_fill_no_micro_batch_are_left_out_of_an_epoch(train: Train) -> None:
    options = {"num_train_epochs": 1, "gradient_accumulation_steps": 1}
    runs = [train(f"drop{drop}", dataloader_drop_last=drop, **options) for drop in (False, True)]
    assert [len((run / "trainer_log.jsonl").read_text().splitlines()) for run in runs] == [6, 5]
    with pytest.raises(OptionError, match="21 rows do not fill a micro-batch of 32"):
        train("none", dataloader_drop_last=True, per_device_train_batch_size=32)
