"""The picture of a run's loss, drawn from its log.  Knows rows of numbers; imports matplotlib only to draw."""

import io
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.files import write_beside
from tunesmith.log import note
from tunesmith.train.telling.events import TRAINER_LOG, is_eval_loss, read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = "training_loss.png"

Curve = tuple[list[int], list[float]]
"""Steps, and the values at them."""

TRAINED = "#2563eb"
EVALUATED = ("#ea580c", "#059669", "#9333ea", "#ca8a04")
INK, PALE, GRID = "#1f2937", "#6b7280", "#e5e7eb"

FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei")
"""The first has every letter but the Chinese ones; of the others, the installed ones stand in."""


def plot_loss(folder: Path) -> Path | None:
    """Draw the loss curves of the run in `folder` as `training_loss.png` there; None, with a note, when none is logged."""
    curves = read_curves(folder)
    if not curves:
        note("plot_loss", f"{folder} has no logged loss yet, so there is nothing to draw")
        return None
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # Without a Chinese font, boxes stand in a Chinese title; that is no reason to say anything.
        warnings.filterwarnings("ignore", message="Glyph")
        draw(curves, title=folder.resolve().name).savefig(picture, format="png", dpi=160)
    write_beside(folder / PICTURE, picture.getvalue())
    return folder / PICTURE


def read_curves(folder: Path) -> dict[str, Curve]:
    """`loss` and each `eval_..._loss` of the folder's log; points that are no number are left out."""
    curves: dict[str, Curve] = {}
    for row in read_rows(folder / TRAINER_LOG):
        for name, value in row.items():
            if (name == "loss" or is_eval_loss(name)) and value is not None:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(row["current_steps"])
                values.append(value)
    return curves


def smooth(values: Sequence[float], span: float | None = None) -> list[float]:
    """At each point, a straight line fitted to its neighbourhood (local linear regression, Cleveland 1979).

    Weights fall off exponentially on both sides, by e over `span` points (default: a thirtieth of all, at least 1).
    Unlike a running average it neither lags behind nor bends at the ends of a steep curve.
    """
    span = max(1.0, len(values) / 30) if span is None else span
    before = _moments(values, span)
    after = _moments(values[::-1], span)[::-1]
    smoothed = []
    for value, (w, x, xx, y, xy), (v, u, uu, z, uz) in zip(values, before, after, strict=True):
        # The point itself is on both sides and must count once; what came before lies in the other direction.
        weight, distance, square, total, product = w + v - 1, u - x, xx + uu, y + z - value, uz - xy
        spread = square * weight - distance**2
        smoothed.append((square * total - distance * product) / spread if spread > 1e-9 else value)
    return smoothed


def _moments(values: Sequence[float], span: float) -> list[tuple[float, float, float, float, float]]:
    """For each point, over itself and those before it: the sums of weight, weight x distance, weight x distance^2,
    weight x value and weight x distance x value."""
    keep = math.exp(-1 / span)
    moments, w, x, xx, y, xy = [], 0.0, 0.0, 0.0, 0.0, 0.0
    for value in values:
        w, x, xx, y, xy = keep * w + 1, keep * (x + w), keep * (xx + 2 * x + w), keep * y + value, keep * (xy + y)
        moments.append((w, x, xx, y, xy))
    return moments


def draw(curves: dict[str, Curve], title: str) -> "Figure":
    """The picture of `curves`, for any backend to render."""
    os.environ["MPLBACKEND"] = "agg"  # it draws into a file; what is set for somebody's screen may not be there
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    installed = set(font_manager.get_font_names())
    with matplotlib.rc_context({"font.family": [font for font in FONTS if font in installed], "font.size": 12}):
        figure = Figure(figsize=(9, 4.8), layout="constrained")
        axes = figure.add_subplot()
        ends = [_draw_trained(axes, *curves["loss"])] if "loss" in curves else []
        evaluated = [name for name in curves if name != "loss"]
        ends += [
            _draw_evaluated(axes, name, *curves[name], EVALUATED[number % len(EVALUATED)])
            for number, name in enumerate(evaluated)
        ]
        _label_ends(axes, ends)
        axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=INK, pad=14, parse_math=False)
        axes.set_xlabel("step", color=PALE)
        axes.set_ylabel("loss", color=PALE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=GRID, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(color=GRID, labelcolor=PALE)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(GRID)
        axes.legend(frameon=False, loc="upper right", labelcolor=INK)
        axes.margins(x=0.02)
        if len({step for steps, _ in curves.values() for step in steps}) == 1:
            axes.margins(x=10)
    return figure


def _draw_trained(axes: "Axes", steps: list[int], losses: list[float]) -> tuple[int, float, str]:
    """The raw curve and the smoothed one; where it ends, and its color."""
    if len(losses) < 3:
        axes.plot(steps, losses, color=TRAINED, linewidth=2, marker="o", label="training loss")
        return steps[-1], losses[-1], TRAINED
    smoothed = smooth(losses)
    axes.plot(steps, losses, color=TRAINED, alpha=0.3, linewidth=1.2, label="training loss")
    axes.plot(steps, smoothed, color=TRAINED, linewidth=2.4, solid_capstyle="round", label="smoothed")
    return steps[-1], smoothed[-1], TRAINED


def _draw_evaluated(
    axes: "Axes", name: str, steps: list[int], losses: list[float], color: str
) -> tuple[int, float, str]:
    label = "evaluation loss" if name == "eval_loss" else name.removeprefix("eval_").removesuffix("_loss")
    marker: Any = "o" if len(steps) <= 60 else None
    axes.plot(steps, losses, color=color, linewidth=2, marker=marker, markersize=5, label=label)
    return steps[-1], losses[-1], color


def _label_ends(axes: "Axes", ends: list[tuple[int, float, str]]) -> None:
    """Write each curve's last value at its end, pushed apart where they would cover one another."""
    low, high = axes.get_ylim()
    least_gap = (high - low) * 0.055
    height = low - least_gap
    for step, value, color in sorted(ends, key=lambda end: end[1]):
        height = max(value, height + least_gap)
        axes.annotate(
            f"{value:.3f}",
            (step, height),
            xytext=(8, 0),
            textcoords="offset points",
            color=color,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
