"""What a run should take is said before its first step and kept in run.json beside what it took."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tunesmith.estimate import history
from tunesmith.estimate.memory import Memory
from tunesmith.train.foretelling import foretold
from tunesmith.train.foretelling.estimated import Case

Train = Callable[..., Path]


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A tiny model of an architecture for which there are no formulas."""
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=tiny.VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tiny.tokenizer().save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


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


def test_a_run_without_formulas_is_traced_where_it_is_long_or_says_why_not(
    train: Train, gpt2: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foretold, "SHORTEST_SECONDS", 0.0)
    monkeypatch.setenv(history.VARIABLE, str(tmp_path / "kept"))
    options = {"model_name_or_path": gpt2, "lora_target": "c_attn", "max_steps": 1}
    train("short", **options)
    told = "estimate: no time for 1 steps: there are no formulas for gpt2, and a run this short is not worth tracing"
    assert told in capsys.readouterr().out and not (tmp_path / "kept" / history.NAME).exists()
    monkeypatch.setattr(foretold, "WORTH_TRACING_SECONDS", 0.0)
    run = train("long", **options)
    assert "estimate: about " in capsys.readouterr().out
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["estimate"]["seconds"]["likely"] > 0
    assert json.loads((tmp_path / "kept" / history.NAME).read_text(encoding="utf-8"))["share"] > 0
    monkeypatch.setattr(foretold, "times_of", refuse_to_trace)
    train("odd", **options)
    assert (
        "estimate: no time for 1 steps: a step of gpt2 cannot be traced: RuntimeError: odd" in capsys.readouterr().out
    )


def refuse_to_trace(case: Case, memory: Memory, *, tracing: bool = True) -> None:
    if tracing:
        raise RuntimeError("odd")


def test_a_finished_run_narrows_the_range_of_later_ones(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foretold, "SHORTEST_SECONDS", 0.0)
    monkeypatch.setenv(history.VARIABLE, str(tmp_path / "kept"))
    first = train("first")
    (line,) = (tmp_path / "kept" / history.NAME).read_text(encoding="utf-8").splitlines()
    run = json.loads(line)
    known, unknown = history.shares(run["device"], "cpu", 32), history.UNKNOWN["cpu"]
    assert known.likely == run["share"] and known.high / known.low < unknown.high / unknown.low / 3
    said = [json.loads((each / "run.json").read_text())["estimate"]["seconds"] for each in (first, train("second"))]
    assert said[0] != said[1]
