"""Runs that are killed, stopped by a signal, or find the disk full, at any file operation: the same command goes on, and ends
as the run that nothing happened to."""

import contextlib
import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exact import assert_equal
from faulty import Ended, Fault, Faulty

POINTS, SAMPLE = 100, 8
"""Operations at which a run is killed, spread evenly; those of a quick test."""


class Case:
    """A run that saves at step 2, 4 and 6, keeps two checkpoints and evaluates; beside it, the same undisturbed."""

    def __init__(self, faulty: Faulty, folder: Path, model: Path, talks: Path):
        options = {
            "model_name_or_path": model, "dataset": "talk", "dataset_dir": talks, "template": "qwen", "output_dir": "run",
            "per_device_train_batch_size": 2, "max_steps": 6, "save_steps": 2, "save_total_limit": 2, "val_size": 4,
            "eval_steps": 2, "learning_rate": 1e-2, "lora_dropout": 0.2, "compute_type": "fp32", "logging_steps": 1,
            "disable_tqdm": True,
        }  # fmt: skip
        self.words = ["train", *(f"{name}={value}" for name, value in options.items())]
        self.faulty, self.folder = faulty, folder
        self.straight = folder / "straight"
        self.straight.mkdir()
        whole = faulty.run(self.straight, *self.words)
        assert whole.code == 0, whole.said
        self.operations = whole.operations

    def fresh(self) -> Path:
        """An empty folder for a run."""
        place = self.folder / "disturbed"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def goes_on(self, place: Path) -> None:
        """The same command ends as the undisturbed run, and nothing half-written is left."""
        ended = self.faulty.run(place, *self.words)
        assert ended.code == 0, ended.said
        assert_equal(self.straight / "run", place / "run")
        names = sorted(path.name for path in (place / "run").iterdir())
        assert not [name for name in names if name.startswith(".")]
        saved = [name for name in names if name.startswith("checkpoint-")]
        assert len(saved) == 2 and saved[-1] == "checkpoint-6", saved  # the other: of step 4, or where a signal came

    def struck(self, at: int, signum: int) -> Ended:
        """A signal comes at one operation, and the same command goes on."""
        place = self.fresh()
        ended = self.faulty.run(place, *self.words, fault=Fault(at=at, signal=signum))
        _goes_on_unless_finished(self, place)
        return ended


@pytest.fixture(scope="module")
def case(faulty: Faulty, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, talks: Path) -> Iterator[Case]:
    yield Case(faulty, tmp_path_factory.mktemp("case"), tiny_model, talks)


def spread(case: Case, number: int, count: int) -> int:
    """Operation `number` of `count` that lie evenly over a run."""
    return 1 + number * (case.operations - 1) // (count - 1)


@pytest.mark.parametrize("number", range(SAMPLE))
def test_a_kill_at_a_file_operation_costs_nothing_but_time(case: Case, number: int) -> None:
    assert case.struck(spread(case, number, SAMPLE), signal.SIGKILL).code == -signal.SIGKILL


@pytest.mark.reliability
@pytest.mark.parametrize("number", range(POINTS))
def test_a_kill_at_any_file_operation_costs_nothing_but_time(case: Case, number: int) -> None:
    assert case.struck(spread(case, number, POINTS), signal.SIGKILL).code == -signal.SIGKILL


@pytest.mark.reliability
@pytest.mark.parametrize("number", range(20))
def test_a_kill_at_any_moment_costs_nothing_but_time(case: Case, number: int) -> None:
    place = case.fresh()
    process = case.faulty.start(place, *case.words)
    time.sleep(random.Random(number).uniform(0.0, 0.5))  # the moment is what is tried, and any of them must do
    signal_sent_to(process, signal.SIGKILL)
    case.faulty.wait()
    _goes_on_unless_finished(case, place)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("number", [1, 4, 6])
def test_a_signal_at_a_file_operation_stops_the_run_in_good_order(case: Case, signum: int, number: int) -> None:
    _stops_in_good_order(case, spread(case, number, SAMPLE), signum)


@pytest.mark.reliability
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("number", range(20))
def test_a_signal_at_any_file_operation_stops_the_run_in_good_order(case: Case, signum: int, number: int) -> None:
    _stops_in_good_order(case, spread(case, number, 20), signum)


@pytest.mark.parametrize("part", [0.3, 0.8])
def test_a_full_disk_stops_the_run_with_a_sentence(case: Case, part: float) -> None:
    _full_disk(case, max(int(part * case.operations), 60), errno.ENOSPC)


@pytest.mark.reliability
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("number", range(10))
def test_a_full_or_broken_disk_stops_the_run_with_a_sentence(case: Case, number: int, error: int) -> None:
    _full_disk(case, spread(case, number, 10), error)


def signal_sent_to(process: int, signum: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signum)


def _full_disk(case: Case, at: int, error: int) -> None:
    """From operation `at` on everything that is written fails; then there is room again."""
    place = case.fresh()
    ended = case.faulty.run(place, *case.words, fault=Fault(at=at, error=error))
    assert "Traceback" not in ended.said, ended.said
    if ended.code:
        assert ended.code in (1, 2), ended.said
    _goes_on_unless_finished(case, place)


def _stops_in_good_order(case: Case, at: int, signum: int) -> None:
    place = case.fresh()
    ended = case.faulty.run(place, *case.words, fault=Fault(at=at, signal=signum))
    assert ended.code in (0, 128 + signum), ended.said  # 0: it came when there was nothing left to stop
    assert "Traceback" not in ended.said and "internal error" not in ended.said
    _goes_on_unless_finished(case, place)


def _goes_on_unless_finished(case: Case, place: Path) -> None:
    facts = place / "run" / "run.json"
    if facts.exists() and '"status": "finished"' in facts.read_text():
        assert_equal(case.straight / "run", place / "run")
    else:
        case.goes_on(place)
