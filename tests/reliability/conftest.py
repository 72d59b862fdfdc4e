"""What the reliability tests share: a command inside the test's own process, and a run on a tiny model.  Knows no promise."""

import contextlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from exact import options, run, talks  # noqa: F401 - fixtures
from faulty import faults_library, faulty  # noqa: F401 - fixtures
from ranks import ranks  # noqa: F401 - fixtures

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before its library is imported

from tunesmith import cli
from tunesmith.config.load import DEBUG_VARIABLE, PARENT_VARIABLE
from tunesmith.jobs import start


@dataclass(frozen=True)
class Ended:
    """How a command ended.  `code` None: its options were accepted, and nothing more was tried."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


class Accepted(BaseException):
    """Raised in place of what follows options that are right; no `except Exception` swallows it."""


Command = Callable[..., Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`command("train", "x.yaml")` in this process, in an empty folder."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in ("LOCAL_RANK", "RANK", PARENT_VARIABLE, DEBUG_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def call(*words: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: int | None = cli.main([str(word) for word in words])
            except Accepted:
                code = None
            finally:
                os.environ.pop(DEBUG_VARIABLE, None)
        return Ended(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def judged(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same, which stops once the options are accepted."""

    def accept(loaded: object) -> int:
        raise Accepted

    monkeypatch.setattr(start, "process_count", accept)
    return command


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A dataset folder with `talk`: 8 rows."""
    folder = tmp_path / "rows"
    folder.mkdir()
    talk = [{"instruction": f"say {n} words", "input": "", "output": "la " * (n + 1)} for n in range(8)]
    (folder / "talk.json").write_text(json.dumps(talk), encoding="utf-8")
    (folder / "dataset_info.json").write_text('{"talk": {"file_name": "talk.json"}}', encoding="utf-8")
    return folder


@pytest.fixture
def train(command: Command, tiny_model: Path, rows: Path) -> Command:
    """`train(dataset="x", ...)`: one step on the tiny model, into `out`; an option that is None is left out."""

    def call(**changes: Any) -> Ended:
        wanted = {
            "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": rows, "template": "qwen", "output_dir": "out",
            "max_steps": 1, "per_device_train_batch_size": 2, "compute_type": "fp32", "disable_tqdm": "true",
            "save_strategy": "no", "disable_cache": "true",
        }  # fmt: skip
        given = {**wanted, **changes}
        return command("train", *(f"{name}={value}" for name, value in given.items() if value is not None))

    return call
