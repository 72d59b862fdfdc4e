"""Threads spin a little longer where each has a core of its own."""

import os
from pathlib import Path

import pytest

from tunesmith.jobs import waiting


@pytest.mark.parametrize(
    ("counts", "threads", "turns"),
    [
        ([1, 1, 1, 1, 1], "4", waiting.QUIET),
        ([1, 9, 1, 9, 1], "4", waiting.QUIET),
        ([2, 2, 2, 2, 2], "4", waiting.BUSY),
        ([2, 2, 2, 2, 2], "3", waiting.QUIET),
        ([9, 1, 9, 1, 9], "1", waiting.BUSY),
    ],
)
def test_turns_by_what_else_runs(monkeypatch: pytest.MonkeyPatch, counts: list[int], threads: str, turns: int) -> None:
    told = iter(counts)
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")  # to be put back as it was
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(waiting, "running", lambda: next(told))
    waiting.wait_quietly()
    assert os.environ["GOMP_SPINCOUNT"] == str(turns)


def test_what_is_said_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    waiting.wait_quietly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize("text", ["", "0.10 0.20 0.30 much/12 3", "0.1 0.2"])
def test_a_machine_that_does_not_tell_counts_as_busy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    (tmp_path / "loadavg").write_text(text)
    read = waiting.running
    monkeypatch.setattr(waiting, "running", lambda: read(tmp_path / "loadavg"))
    assert waiting.is_busy()
    monkeypatch.setattr(waiting, "running", lambda: read(tmp_path / "nowhere"))
    assert waiting.is_busy()


def test_this_very_program_runs() -> None:
    assert waiting.running() >= 1
