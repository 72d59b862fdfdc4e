"""The logs of a run that was interrupted are those of one that was not, and every file can be read at any moment."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunesmith import log
from tunesmith.train.telling.events import EVENTS, RUN_LOG, TRAINER_LOG, NoRecord, Record, read_rows, speed


def metrics(step: int) -> dict[str, float]:
    return {
        "loss": 2 / step + 0.1234567890123,
        "grad_norm": 1.0,
        "learning_rate": 5e-5 / step,
        "epoch": step / 25,
        "num_input_tokens_seen": 100 * step,
    }


class Listed:
    """A tracker that keeps what it gets."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def close(self) -> None:
        self.closed = True


def test_a_log_row_has_the_reference_keys_and_exact_values(tmp_path: Path) -> None:
    with Record(tmp_path, total_steps=50) as record:
        record.log(12, metrics(12), seconds=11.9)
        record.log(12, {"eval_loss": 1.5, "epoch": 0.48}, seconds=13.0)
    train, evaluation = read_rows(tmp_path / TRAINER_LOG)
    assert train == {
        "current_steps": 12,
        "total_steps": 50,
        "loss": metrics(12)["loss"],
        "lr": 5e-5 / 12,
        "epoch": 0.48,
        "percentage": 24.0,
        "elapsed_time": "0:00:11",
        "remaining_time": "0:00:37",
        "throughput": 100.84,
        "total_tokens": 1200,
    }
    assert list(evaluation) == [
        "current_steps", "total_steps", "eval_loss", "epoch", "percentage", "elapsed_time", "remaining_time",
    ]  # fmt: skip


def run(folder: Path, history: list[dict[str, Any]], first: int, last: int) -> list[dict[str, Any]]:
    with Record(folder, total_steps=20, history=history) as record:
        for step in range(first, last + 1):
            record.log(step, metrics(step), seconds=step * 0.5)
        record.save_state(folder, {"global_step": last, "epoch": last / 25})
    return record.history


def test_an_interrupted_run_logs_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    (straight := tmp_path / "straight").mkdir()
    (broken := tmp_path / "broken").mkdir()
    run(straight, [], 1, 20)
    stored = json.dumps(run(broken, [], 1, 8))
    run(broken, json.loads(stored), 9, 13)  # killed after step 13, having saved nothing since step 8
    run(broken, json.loads(stored), 9, 20)
    for name in (TRAINER_LOG, "trainer_state.json"):
        assert (broken / name).read_bytes() == (straight / name).read_bytes()
    assert len(read_rows(broken / TRAINER_LOG)) == 20


def test_evaluating_in_a_run_s_folder_leaves_its_log_alone(tmp_path: Path) -> None:
    run(tmp_path, [], 1, 3)
    with Record(tmp_path, total_steps=0) as record:
        record.results("eval", {"eval_loss": 1.0})
    assert len(read_rows(tmp_path / TRAINER_LOG)) == 3


def test_events_are_numbered_over_all_starts_and_a_torn_line_is_cut(tmp_path: Path) -> None:
    with Record(tmp_path, total_steps=5) as record:
        record.event("started", folder=tmp_path)
        record.event("saved", step=1)
    with open(tmp_path / EVENTS, "ab") as file:
        file.write(b'{"number": 3, "ti')
    assert [event["number"] for event in read_rows(tmp_path / EVENTS)] == [1, 2]
    with Record(tmp_path, total_steps=5) as record:
        record.event("resumed", step=1)
    events = read_rows(tmp_path / EVENTS)
    assert [(event["number"], event["kind"]) for event in events] == [(1, "started"), (2, "saved"), (3, "resumed")]
    assert events[0]["folder"] == str(tmp_path)


@pytest.mark.parametrize("rubbish", [b"\x00" * 40, b"\x00" * 40 + b"\n", b"[1]\n{}\n"])
def test_what_a_power_cut_leaves_is_cut(tmp_path: Path, rubbish: bytes) -> None:
    whole = b'{"number": 7, "time": "", "kind": "saved"}\n'
    (tmp_path / EVENTS).write_bytes(whole + rubbish)
    Record(tmp_path, total_steps=5).close()
    assert (tmp_path / EVENTS).read_bytes() == whole


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    with Record(tmp_path, total_steps=5) as record:
        record.log(1, {"loss": math.nan, "grad_norm": math.inf}, seconds=1.0)
    assert read_rows(tmp_path / TRAINER_LOG)[0]["loss"] is None
    assert read_rows(tmp_path / EVENTS)[0]["metrics"] == {"loss": None, "grad_norm": None}


def test_the_trainer_state_is_one_that_transformers_reads(tmp_path: Path) -> None:
    from transformers import TrainerState

    with Record(tmp_path, total_steps=20) as record:
        record.log(10, metrics(10), seconds=3.0)
        record.save_state(tmp_path, {"global_step": 10, "epoch": 0.4, "best_metric": 1.5, "num_train_epochs": 1})
    state = TrainerState.load_from_json(str(tmp_path / "trainer_state.json"))
    assert (state.global_step, state.max_steps, state.best_metric, state.epoch) == (10, 20, 1.5, 0.4)
    assert state.log_history == [{**metrics(10), "step": 10}]


def test_a_fact_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    with Record(tmp_path, total_steps=1) as record, pytest.raises(AssertionError, match="elapsed"):
        record.save_state(tmp_path, {"elapsed": 3})


def test_results_are_merged(tmp_path: Path) -> None:
    with Record(tmp_path, total_steps=20) as record:
        record.results("train", {"epoch": 1.0, "train_loss": 0.5, **speed("train", seconds=2.0, samples=10, steps=5)})
        record.results("eval", {"epoch": 1.0, "eval_loss": 0.75, "perplexity": math.inf})
    train = json.loads((tmp_path / "train_results.json").read_text())
    assert train == {
        "epoch": 1.0,
        "train_loss": 0.5,
        "train_runtime": 2.0,
        "train_samples_per_second": 5.0,
        "train_steps_per_second": 2.5,
    }
    everything = json.loads((tmp_path / "all_results.json").read_text())
    assert everything == {**train, "eval_loss": 0.75, "perplexity": None}


def test_run_log_hears_notes_and_warnings_until_the_record_is_closed(tmp_path: Path) -> None:
    with Record(tmp_path, total_steps=20) as record:
        log.warn("cutoff_len", "3 rows are longer; 数据")
        record.log(5, {"loss": 1.25}, seconds=1.0)
    log.warn("cutoff_len", "not heard")
    lines = (tmp_path / RUN_LOG).read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in lines] == ["warning: cutoff_len: 3 rows are longer; 数据", "step 5/20: loss 1.25"]
    assert [event["kind"] for event in read_rows(tmp_path / EVENTS)] == ["message", "log"]


@pytest.mark.parametrize(
    ("error", "written"),
    [(log.RunError("the loss is nan"), "error: the loss is nan"), (KeyError("a bug"), "Traceback (most recent")],
)
def test_run_log_tells_why_a_run_broke_off(tmp_path: Path, error: Exception, written: str) -> None:
    with pytest.raises(type(error)), Record(tmp_path, total_steps=20):
        raise error
    assert (tmp_path / RUN_LOG).read_text()[20:].startswith(written)


def test_trackers_get_every_row_and_are_closed(tmp_path: Path) -> None:
    tracker = Listed()
    with Record(tmp_path, total_steps=20, trackers=[tracker]) as record:
        record.log(5, {"loss": 1.25, "grad_norm": 2.0}, seconds=1.0)
    assert tracker.rows == [(5, {"loss": 1.25, "grad_norm": 2.0})]
    assert tracker.closed


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError), NoRecord() as record:
        record.event("started")
        record.log(1, {"loss": 1.0}, seconds=1.0)
        record.results("train", {"train_loss": 1.0})
        record.save_state(tmp_path, {"global_step": 1})
        raise KeyError
    assert list(tmp_path.iterdir()) == []
