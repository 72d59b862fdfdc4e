"""Intervals and comparisons, against values worked out by hand."""

import numpy as np
import pytest

from tunesmith.evaluation import report
from tunesmith.evaluation.measured import Measured, compared, drawn, sign_test, wilson


def measured(*values: float, weights: tuple[float, ...] = (), less: bool = False) -> Measured:
    rows = [{"row": f"f row {number}", "said": f"{value}"} for number, value in enumerate(values, start=1)]
    weighed = np.array(weights or [1.0] * len(values))
    return Measured("task", "acc", np.array(values, dtype=float), weighed, rows, less_is_better=less)


def test_wilson_by_hand():
    # 8 of 10: (0.8 + 1.9208/10) / 1.38416 -+ 1.96 / 1.38416 * sqrt(0.016 + 0.00960)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0


def test_mcnemar_by_hand():
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(3, 1) == pytest.approx(2 * (1 + 4) / 16)
    assert sign_test(0, 0) == sign_test(2, 2) == 1.0


def test_mean_and_standard_error():
    one = measured(1, 1, 0, 1)
    assert one.mean == 0.75 and one.is_share
    assert one.stderr == pytest.approx(np.std([1, 1, 0, 1], ddof=1) / 2)
    weighted = measured(2.0, 4.0, weights=(1.0, 3.0))
    assert weighted.mean == 3.5 and not weighted.is_share


def test_a_drawn_interval_covers_as_often_as_it_says():
    draw = np.random.default_rng(0)
    covered = sum(
        low <= 0.0 <= high for low, high in (drawn(draw.normal(size=60), np.ones(60), number) for number in range(100))
    )
    assert 88 <= covered <= 99


def test_rows_are_compared_in_pairs():
    base, tuned = measured(1, 0, 0, 1, 0), measured(1, 1, 1, 0, 0)
    found = compared(base, tuned, seed=1)
    assert (found.gained, found.lost) == ([1, 2], [3])
    assert found.value == pytest.approx(0.2) and found.low <= 0.2 <= found.high
    assert compared(base, base, seed=1).low == compared(base, base, seed=1).high == 0.0
    # What all rows gain alike has no spread, however far the rows are apart.
    rising = compared(measured(0.1, 5.0, 2.0), measured(0.3, 5.2, 2.2), seed=1)
    assert rising.low == pytest.approx(0.2) and rising.high == pytest.approx(0.2)


def test_less_loss_is_a_gain():
    found = compared(measured(2.0, 1.0, 3.0, less=True), measured(1.0, 1.5, 1.0, less=True), seed=1)
    assert (found.gained, found.lost) == ([2, 0], [1])
    assert found.value < 0


def test_the_table_shows_subjects_and_examples():
    base, tuned = measured(1, 0), measured(0, 1)
    base.groups = tuned.groups = ["law", "art"]
    lines = list(report.lines([tuned], [base], seed=1))
    assert " ".join(lines[0].split()) == "task metric rows base tuned difference 95 % interval gained lost p"
    assert [line.split()[0] for line in lines[1:4]] == ["task", "law", "art"]
    assert "task acc, gained: 1 of 2 rows" in lines and "task acc, forgotten: 1 of 2 rows" in lines
    assert "  f row 1 base 1, tuned 0" in lines
    told = report.as_dict([tuned], [base], seed=1)
    assert [(entry["subject"], entry["gained"], entry["lost"]) for entry in told["results"]] == [
        ("", 1, 1), ("law", 0, 1), ("art", 1, 0),
    ]  # fmt: skip
    assert [row["base_value"] for row in told["rows"]] == [1.0, 0.0]
