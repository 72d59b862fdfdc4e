"""Trackers get the metrics and the options, never a secret, and never end the training they watch."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunesmith import catalog
from tunesmith.log import MissingExtra, OptionError, RunError
from tunesmith.train.telling import trackers

OPTIONS: Mapping[str, Any] = {
    "learning_rate": 1e-4,
    "hf_hub_token": "hf_secret",
    "lora_target": ["q_proj", "v_proj"],
    "placeholders": {"name": "Ada", "api_key": "hf_secret"},
    "max_new_tokens": 10,
    "max_steps": None,
    "bf16": True,
}


def test_secrets_are_left_out_at_any_depth() -> None:
    assert trackers.told(OPTIONS) == {
        "learning_rate": 1e-4,
        "lora_target": '["q_proj", "v_proj"]',
        "placeholders": '{"name": "Ada"}',
        "max_new_tokens": 10,
        "max_steps": "null",
        "bf16": True,
    }


def test_none_is_no_tracker_and_nothing_is_started_twice() -> None:
    assert trackers.check(["none"]) == []
    assert trackers.check(["TensorBoard", "tensorboard", "none"]) == ["tensorboard"]


def test_every_tracker_of_the_catalog_has_its_arguments(tmp_path: Path) -> None:
    assert set(catalog.names("tracker")) == set(trackers._ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("http://localhost:5000", "is an address; write the tracker's name"),
    ],
)
def test_what_is_no_tracker_is_refused(name: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        trackers.check([name])


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[wandb\]'"):
        trackers.check(["wandb"])


def read(folder: Path) -> dict[str, dict[int, float]]:
    """Scalars that TensorBoard shows for a run's folder, by tag and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for resumed, steps in ((None, (5, 10, 15)), (10, (15, 20))):
        (tracker,) = trackers.start(
            ["tensorboard"], run_name="first", logging_dir=tmp_path, options=OPTIONS, resumed=resumed
        )
        for step in steps:
            tracker.log(step, {"loss": step + (0.5 if resumed else 0.0), "grad_norm": float("nan")})
        tracker.log(steps[-1], {"eval_loss": 0.25})
        tracker.close()
        time.sleep(1)  # TensorBoard reads files in the order of their names, which begin with the second
    assert read(tmp_path / "first") == {
        "train/loss": {5: 5.0, 10: 10.0, 15: 15.5, 20: 20.5},
        "eval/loss": {20: 0.25},
    }
    assert b"hf_secret" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


class Broken:
    """A service that goes away."""

    def __init__(self) -> None:
        self.calls = 0

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls += 1
        raise ConnectionError("no route to host")

    def finish(self) -> None:
        self.calls += 1


def test_a_tracker_that_fails_is_dropped_with_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    service = Broken()
    tracker = trackers.Tracking("wandb", service)
    for step in (1, 2, 3):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    assert service.calls == 1
    assert capsys.readouterr().err.splitlines() == [
        "warning: report_to: wandb failed and gets nothing more from this run: no route to host"
    ]


def test_a_tracker_that_cannot_start_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "taken").write_text("a file where the run's folder should be")
    with pytest.raises(RunError, match="tensorboard did not start"):
        trackers.start(["tensorboard"], run_name="taken", logging_dir=tmp_path, options={})
