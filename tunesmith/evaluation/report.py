"""What was measured, as tables and as JSON.  Knows numbers; knows no model."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from tunesmith.evaluation.measured import Difference, Measured, compared

EXAMPLES = 3
"""Rows shown of what was gained, and of what was forgotten."""

CHARACTERS = 60
"""Of a text on the screen."""


def lines(tuned: Sequence[Measured], base: Sequence[Measured] | None, seed: int) -> Iterator[str]:
    """The table, and beneath it rows that one model does better than the other."""
    table: list[tuple[str, ...]] = []
    if base is None:
        table += [("task", "metric", "rows", "value", "95 % interval")]
        table += [_alone(name, one, seed) for each in tuned for name, one in _with_subjects(each)]
        yield from _aligned(table)
        return
    table += [("task", "metric", "rows", "base", "tuned", "difference", "95 % interval", "gained", "lost", "p")]
    for before, after in zip(base, tuned, strict=True):
        for (name, one), (_, other) in zip(_with_subjects(before), _with_subjects(after), strict=True):
            table.append(_both(name, one, other, compared(one, other, seed)))
    yield from _aligned(table)
    for before, after in zip(base, tuned, strict=True):
        found = compared(before, after, seed)
        for word, rows in (("gained", found.gained), ("forgotten", found.lost)):
            if rows:
                yield ""
                yield f"{after.name} {after.metric}, {word}: {len(rows)} of {len(after.values)} rows"
                yield from (f"  {_example(before.rows[row], after.rows[row])}" for row in rows[:EXAMPLES])


def as_dict(tuned: Sequence[Measured], base: Sequence[Measured] | None, seed: int) -> dict[str, Any]:
    """All of it, with each row, for `results.json`."""
    results, rows = [], []
    for place, each in enumerate(tuned):
        other = None if base is None else base[place]
        others = [None] * (1 + len(_subjects(each))) if other is None else [one for _, one in _with_subjects(other)]
        for (_, one), its in zip(_with_subjects(each), others, strict=True):
            results.append(_entry(one, its, seed, "" if one is each else one.groups[0]))
        rows += [_row(each, other, number) for number in range(len(each.values))]
    return {"harness": _harness(), "seed": seed, "results": results, "rows": rows}


def _harness() -> str | None:
    """The harness's version."""
    if find_spec("lm_eval") is None:
        return None
    from importlib.metadata import version

    return version("lm_eval")


def _subjects(each: Measured) -> list[str]:
    return list(dict.fromkeys(group for group in each.groups if group))


def _with_subjects(each: Measured) -> Iterator[tuple[str, Measured]]:
    """The whole, and each subject, with their names in the table."""
    yield each.name, each
    for subject in _subjects(each):
        yield f"  {subject}", each.of(subject)


def _alone(name: str, one: Measured, seed: int) -> tuple[str, ...]:
    low, high = one.interval(seed)
    return name, one.metric, f"{len(one.values):,}", f"{one.mean:.4f}", f"{low:.4f} to {high:.4f}"


def _both(name: str, base: Measured, tuned: Measured, apart: Difference) -> tuple[str, ...]:
    ends = (name, tuned.metric, f"{len(tuned.values):,}", f"{base.mean:.4f}", f"{tuned.mean:.4f}")
    interval = f"{apart.low:+.4f} to {apart.high:+.4f}"
    counts = (f"{len(apart.gained):,}", f"{len(apart.lost):,}", f"{apart.p:.3f}")
    return (*ends, f"{apart.value:+.4f}", interval, *counts)


def _aligned(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in
                 enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join(cells).rstrip()


def _example(base: dict[str, Any], tuned: dict[str, Any]) -> str:
    asked = f": {_short(tuned['question'])}" if "question" in tuned else ""
    wanted = f"; wanted {_short(tuned['wanted'])}" if "wanted" in tuned else ""
    return f"{tuned['row']}{asked} base {_short(base['said'])}, tuned {_short(tuned['said'])}{wanted}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CHARACTERS else f"{line[: CHARACTERS - 3]}..."


def _entry(one: Measured, base: Measured | None, seed: int, subject: str) -> dict[str, Any]:
    low, high = one.interval(seed)
    entry: dict[str, Any] = {"task": one.name, "subject": subject, "metric": one.metric, "rows": len(one.values)}
    entry |= {"value": one.mean, "stderr": one.stderr, "interval": [low, high]}
    if base is not None:
        apart = compared(base, one, seed)
        entry |= {"base": base.mean, "difference": apart.value, "difference_interval": [apart.low, apart.high]}
        entry |= {"gained": len(apart.gained), "lost": len(apart.lost), "p": apart.p}
    return entry


def _row(each: Measured, base: Measured | None, number: int) -> dict[str, Any]:
    found = {"task": each.name, "metric": each.metric, "value": float(each.values[number]), **each.rows[number]}
    if base is not None:
        found |= {"base_value": float(base.values[number]), "base_said": base.rows[number]["said"]}
    return found
