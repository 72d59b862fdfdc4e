"""Limits of `--fail-if`: what is understood, what is passed, and what is said."""

from dataclasses import fields

import pytest

from tunesmith.data.telling.totals import Totals
from tunesmith.log import OptionError
from tunesmith.look.limits import COUNTS, SHARES, parse

TOTALS = Totals(
    rows_read=200, rows_kept=190, rows_evaluated=6, dropped=4, dropped_by_reason={"empty answer": 4}, cut=10, split=0,
    samples=190, tokens=1000, trained_tokens=40, trained_fraction=0.04, longest=64, cutoff_len=64, lengths=[],
    padding=0.25, fill_rate=None, rows_per_step=8, steps_per_epoch=24, steps=72,
)  # fmt: skip


def passed(text: str) -> list[str]:
    return [said for limit in parse(text) if (said := limit.passed(TOTALS))]


@pytest.mark.parametrize(
    "kept",
    ["trained_fraction<0.04", "dropped>2%", "dropped>4", "cut>=11", "padding>25%", "longest>64", "steps==71", ""],
)
def test_limits_that_are_kept(kept: str) -> None:
    assert passed(kept) == []


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("trained_fraction<0.05", "fail-if: trained_fraction<0.05: trained_fraction is 4.00%"),
        ("trained_fraction < 5%", "fail-if: trained_fraction < 5%: trained_fraction is 4.00%"),
        ("dropped>1%", "fail-if: dropped>1%: dropped is 4, 2.00% of rows_read 200"),
        ("dropped>=4", "fail-if: dropped>=4: dropped is 4, 2.00% of rows_read 200"),
        ("padding>=0.25", "fail-if: padding>=0.25: padding is 25.00%"),
        ("rows_kept<1e3", "fail-if: rows_kept<1e3: rows_kept is 190, 95.00% of rows_read 200"),
        ("fill_rate<0.9", "fail-if: fill_rate<0.9: there is no fill_rate without packing"),
        ("steps=72", "fail-if: steps=72: steps is 72"),
    ],
)
def test_limits_that_are_passed(limit: str, said: str) -> None:
    assert passed(limit) == [said]


def test_each_limit_is_looked_at() -> None:
    assert len(passed("trained_fraction<0.05, dropped>1%,cut>50%")) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dropped", "--fail-if: 'dropped' is no limit; write such as"),
        ("dropped>x", "--fail-if: 'dropped>x' is no limit"),
        ("droped>1", "--fail-if: unknown total 'droped'; did you mean 'dropped'?; known are"),
        ("steps>1%", "--fail-if: steps>1%: steps is a count of nothing larger, so it has no percentage"),
    ],
)
def test_what_is_no_limit(text: str, problem: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    assert problem in str(caught.value)


def test_limits_are_about_totals() -> None:
    names = {field.name for field in fields(Totals)}
    assert {*COUNTS, *SHARES, *filter(None, COUNTS.values())} <= names
