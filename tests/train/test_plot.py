"""The picture shows what the log says, smoothed without lag, and is only made when there is something to show."""

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.train.telling.events import Record
from tunesmith.train.telling.plot import draw, plot_loss, read_curves, smooth


def logged(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    Record(folder, total_steps=100, history=[{"seconds": 1.0, **row} for row in rows]).close()
    return folder


def test_a_picture_is_drawn_from_the_log(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 3 / step} for step in range(1, 31)] + [{"step": 30, "eval_loss": 0.5}]
    folder = logged(tmp_path / "运行 $1^$^", *rows)
    picture = plot_loss(folder)
    assert picture == folder / "training_loss.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_curves_are_the_losses_of_the_log(tmp_path: Path) -> None:
    folder = logged(
        tmp_path,
        {"step": 5, "loss": 2.0, "grad_norm": 9.0},
        {"step": 5, "eval_loss": 1.75, "eval_runtime": 3.0},
        {"step": 10, "loss": math.nan},
        {"step": 15, "loss": 1.0, "eval_zh_loss": 1.5},
    )
    assert read_curves(folder) == {
        "loss": ([5, 15], [2.0, 1.0]),
        "eval_loss": ([5], [1.75]),
        "eval_zh_loss": ([15], [1.5]),
    }


def test_one_point_is_enough(tmp_path: Path) -> None:
    assert plot_loss(logged(tmp_path, {"step": 1, "loss": 2.0})) is not None


def test_nothing_logged_is_nothing_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plot_loss(tmp_path) is None
    assert plot_loss(logged(tmp_path, {"step": 1, "grad_norm": 2.0})) is None
    assert not (tmp_path / "training_loss.png").exists()
    assert capsys.readouterr().err.count("note: plot_loss:") == 2


def test_each_curve_ends_in_its_last_value_and_no_two_labels_overlap() -> None:
    figure = draw({"loss": ([1, 2], [2.0, 1.0]), "eval_loss": ([1, 2], [2.0, 1.001])}, "run")
    (axes,) = figure.axes
    heights = {label.get_text(): label.xy[1] for label in axes.texts}  # type: ignore[attr-defined]
    assert set(heights) == {"1.000", "1.001"}
    low, high = axes.get_ylim()
    assert heights["1.001"] - heights["1.000"] > 0.05 * (high - low)


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(1, 200), st.floats(0.5, 20))
def test_a_straight_line_stays_what_it_is(start: float, slope: float, count: int, span: float) -> None:
    line = [start + slope * step for step in range(count)]
    assert smooth(line, span) == pytest.approx(line, abs=1e-5)


def test_smoothing_takes_noise_away_and_does_not_lag() -> None:
    noise = random.Random(0)
    true = [0.5 + 2 * math.exp(-step / 60) for step in range(300)]
    raw = [value + noise.gauss(0, 0.1) for value in true]

    def distance(values: list[float]) -> float:
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(values, true, strict=True)) / len(true))

    assert distance(smooth(raw)) < 0.35 * distance(raw)


def test_matplotlib_is_imported_only_to_draw(repo: Path) -> None:
    code = "import sys, tunesmith.train.telling.plot; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repo).returncode == 0
