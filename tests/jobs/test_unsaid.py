"""A run that ended without a word is told of by the next one, with what Linux knows."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tunesmith.jobs import unsaid

EVENTS = [
    {"number": 1, "time": "10:00", "kind": "log", "step": 4, "resident_bytes": 3 << 29},
    {"number": 2, "time": "10:05", "kind": "log", "step": 8, "resident_bytes": 3 << 30},
    {"number": 3, "time": "10:06", "kind": "saved"},
]


def facts(**changes: Any) -> dict[str, Any]:
    here = {"boot": "b", "killed": 2, "memory_bytes": 4 << 30}
    return {"status": "running", "host": socket.gethostname(), "started": "09:00", "machine": here} | changes


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`told(facts, killed=..., boot=...)`: what is said where Linux counts so many."""

    def tell(said: dict[str, Any], *, killed: int | None = 2, boot: str = "b") -> str:
        monkeypatch.setattr(unsaid, "machine", lambda: {"boot": boot, "killed": killed, "memory_bytes": 1})
        unsaid.tell(tmp_path, said)
        return capsys.readouterr().err

    return tell


def test_step_time_and_memory_are_told(tmp_path: Path, told: Any) -> None:
    lines = "".join(json.dumps(event) + "\n" for event in EVENTS)
    (tmp_path / "events.jsonl").write_text(lines + '{"number": 4, "ti', encoding="utf-8")  # killed while it wrote
    words = (
        "the run before ended without a word, after step 8, last heard of at 10:06, holding 3.0 of 4.0 GiB of memory"
    )
    assert words in told(facts())


@pytest.mark.parametrize(
    ("changes", "now", "words"),
    [
        ({}, {"killed": 3}, "has killed a process for memory"),
        ({}, {"killed": 2}, "has killed no process for memory"),
        ({}, {"boot": "c"}, "was started anew"),
    ],
)
def test_what_linux_knows_is_told(changes: dict[str, Any], now: dict[str, Any], words: str, told: Any) -> None:
    said = told(facts(**changes), **now)
    assert "before its first log row, last heard of at 09:00\n" in said and words in said


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"machine": None}])
def test_what_nobody_knows_is_not_told(changes: dict[str, Any], told: Any) -> None:
    assert told(facts(**changes), killed=9).count("\n") == 1


@pytest.mark.parametrize("status", ["finished", "interrupted", "failed", None])
def test_a_run_that_said_how_it_ended_is_no_matter(status: str | None, told: Any) -> None:
    assert told(facts(status=status), killed=9) == ""


def test_this_machine_is_known() -> None:
    here = unsaid.machine()
    assert here.keys() == {"boot", "killed", "memory_bytes"}
    held = unsaid.resident_bytes()
    assert held is None or held > 1 << 20
