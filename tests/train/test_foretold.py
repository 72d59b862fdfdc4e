"""What a run should take is said before its first step and kept in run.json beside what it took."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.estimate import history
from tunesmith.train import foretold

Train = Callable[..., Path]


def test_estimate_and_fact_stand_side_by_side(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foretold, "SHORTEST_SECONDS", 0.0)
    monkeypatch.setenv(history.VARIABLE, str(tmp_path))
    run = train("run", price=3600, currency="CNY")
    told = capsys.readouterr().out
    assert "estimate: about " in told and " for 6 steps; CNY " in told
    assert " at your price: CNY 3600.00 a device and hour" in told
    assert "Took: memory " in told and "tokens a second" in told
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    said, took = facts["estimate"], facts["fact"]
    assert said["steps"] == took["steps"] == 6
    assert took["money"]["paid"] == pytest.approx(took["seconds"], rel=0.01)
    assert said["money"]["currency"] == took["money"]["currency"] == "CNY"
    assert said["money"]["price"] == "your price: CNY 3600.00 a device and hour"
    assert took["peak_bytes"] > 100 << 20
    (line,) = (tmp_path / history.NAME).read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["hidden"] == 32 and json.loads(line)["share"] > 0


def test_short_runs_and_runs_without_a_cache_tell_nothing_of_later_ones(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(history.VARIABLE, str(tmp_path))
    train("run")
    monkeypatch.setattr(foretold, "SHORTEST_SECONDS", 0.0)
    train("other", disable_cache=True)
    assert not (tmp_path / history.NAME).exists()
