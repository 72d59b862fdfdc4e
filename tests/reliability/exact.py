"""Runs on tiny models within the test's own process: how they are started and stopped, and what of two must be equal."""

import gc
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.jobs import checkpoints
from tunesmith.jobs.start import train_command
from tunesmith.train.loop import Step
from tunesmith.train.position import Position
from tunesmith.train.session import Session

TIMES = ("elapsed_time", "remaining_time", "throughput", "seconds", "time", "number", "resident_bytes")
"""What may differ between a run and one that was stopped on the way: times, the
numbers of events between, and the memory that processes hold."""

POSITION_TIMES = ("seconds", "evaluation", "best_evaluation", "log_history")

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "seven", "small", "blue", "birds", "over", "one", "sea"]

Run = Callable[..., Path]


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder: `talk`, 21 alpaca rows of different lengths, so that 8 a step leave a short last window; `more`, 9
    others; `text`, 60 lines."""
    draw = random.Random(0)

    def text(longest: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, longest)))

    def alpaca(count: int, longest: int) -> str:
        rows = [{"instruction": text(longest), "input": "", "output": text(longest + 5)} for _ in range(count)]
        return json.dumps(rows)

    folder = tmp_path_factory.mktemp("talks")
    files = {"talk.json": alpaca(21, 9), "more.json": alpaca(9, 3), "text.txt": "\n".join(text(14) for _ in range(60))}
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    entries = {name.split(".")[0]: {"file_name": name} for name in files}
    entries["text"] |= {"columns": {"prompt": "text"}}
    (folder / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


@pytest.fixture
def options(tiny_model: Path, talks: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`options("name", finetuning_type="full", ...)`: a run of 6 steps in the folder `name`, as words of a command."""

    def words(name: str, **written: Any) -> list[str]:
        wanted = {
            "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": talks, "template": "qwen",
            "output_dir": tmp_path / name, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
            "num_train_epochs": 2, "learning_rate": 1e-2, "compute_type": "fp32", "logging_steps": 1, "disable_tqdm": True,
        }  # fmt: skip
        return [f"{key}={value}" for key, value in (wanted | written).items()]

    return words


@pytest.fixture
def run(options: Callable[..., list[str]], tmp_path: Path) -> Run:
    """`run("name", finetuning_type="full", ...)` trains and returns the folder; same name: the same command again.  `code`: how
    it is to end, None for a kill."""

    def start(name: str, *, code: int | None = 0, **written: Any) -> Path:
        try:
            assert train_command(options(name, **written)) == code
        except Killed:
            assert code is None
        gc.collect()  # as the system does with a process that is gone: its lock is free
        return tmp_path / name

    return start


class Killed(BaseException):
    """A run ends at once, as if its process were gone."""


@contextmanager
def stopped(step: int, *, kill: bool) -> Iterator[None]:
    """A run in the block ends behind step `step`: killed on the spot, or by Ctrl-C, which lets the next step finish."""
    advance = Session.advance

    def advance_and_stop(self: Session, done: Step) -> None:
        advance(self, done)
        if self.position.step == step:
            if kill:
                raise Killed
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "advance", advance_and_stop)
        yield


def assert_equal(straight: Path, other: Path) -> None:
    """Weights, the last checkpoint with optimizer and random states, and all logs are equal but for times."""
    for name in sorted(path.name for path in straight.glob("*.safetensors")):
        assert_same_tensors(straight / name, other / name)
    saved = checkpoints.every(straight)
    if saved:
        for path in sorted(saved[-1].rglob("*.safetensors")):
            assert_same_tensors(path, other / path.relative_to(straight))
        positions = [json.loads((run / saved[-1].name / "resume.json").read_text()) for run in (straight, other)]
        first, second = ({key: value for key, value in each.items() if key not in POSITION_TIMES} for each in positions)
        assert first == second
    assert log_rows(straight) == log_rows(other)
    assert history(straight) == history(other)
    assert results(straight) == results(other)


def assert_same_tensors(one: Path, other: Path) -> None:
    """Two safetensors files hold the same bits under the same names."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), second[name].reshape(-1).view(torch.uint8)), (
            f"{one.name}: {name}"
        )


def log_rows(run: Path) -> list[dict[str, Any]]:
    """`trainer_log.jsonl` without times."""
    return [_timeless(row) for row in _lines(run / "trainer_log.jsonl")]


def history(run: Path) -> dict[str, Any]:
    """`trainer_state.json`, whose rows have no times."""
    return json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))


def last_step(run: Path) -> int:
    """Steps of a run that is through."""
    return int(history(run)["global_step"])


def results(run: Path) -> dict[str, Any]:
    """What came out, without times and speeds."""
    found = json.loads((run / "all_results.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if not key.endswith(("_runtime", "_per_second"))}


def position(checkpoint: Path) -> Position:
    """Where a checkpoint's run stood."""
    return Position(**json.loads((checkpoint / "resume.json").read_text(encoding="utf-8")))


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in TIMES}


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
