"""`--fail-if trained_fraction<0.05,dropped>1%`: limits that totals must keep.  Knows totals by name."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.catalog import did_you_mean
from tunesmith.data.telling.totals import Totals
from tunesmith.log import OptionError

_LIMIT = re.compile(r"(?P<name>\w+)\s*(?P<sign><=|>=|<|>|==?)\s*(?P<number>\d+(\.\d+)?(e[-+]?\d+)?)\s*(?P<percent>%?)")
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "==": operator.eq,
}  # fmt: skip

COUNTS: dict[str, str | None] = {
    "rows_read": None, "rows_kept": "rows_read", "rows_evaluated": "rows_read", "dropped": "rows_read",
    "cut": "rows_read", "split": "rows_read", "samples": None, "tokens": None, "trained_tokens": "tokens",
    "longest": "cutoff_len", "steps_per_epoch": None, "steps": None,
}  # fmt: skip
"""Totals that count -> what a percentage of them is of; None: nothing."""

SHARES = ("trained_fraction", "padding", "fill_rate")
"""Totals that are fractions."""

UNKNOWN = {"fill_rate": "without packing", "steps_per_epoch": "with streaming"}
"""Totals that there may be none of, and when."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit.  It is passed when `name sign number` holds."""

    written: str
    name: str
    sign: str
    number: float
    percent: bool

    def passed(self, totals: Totals) -> str | None:
        """What to say when the totals pass the limit; None when they keep it."""
        values = totals.as_dict()
        value, whole = values[self.name], COUNTS.get(self.name)
        if value is None:
            return f"fail-if: {self.written}: there is no {self.name} {UNKNOWN[self.name]}"
        share = value if self.name in SHARES else value / max(values[whole], 1) if whole else None
        compared = (share * 100 if share is not None else 0.0) if self.percent else value
        if not _SIGNS[self.sign](compared, self.number):
            return None
        shown = f"{share:.2%}" if self.name in SHARES else f"{value:,}"
        more = f", {share:.2%} of {whole} {values[whole]:,}" if whole and share is not None else ""
        return f"fail-if: {self.written}: {self.name} is {shown}{more}"


def parse(text: str) -> list[Limit]:
    """The limits of `--fail-if`.  Raises OptionError for one that is not understood."""
    return [_limit(part.strip()) for part in text.split(",") if part.strip()]


def _limit(written: str) -> Limit:
    match = _LIMIT.fullmatch(written)
    if match is None:
        raise OptionError(f"--fail-if: '{written}' is no limit; write such as trained_fraction<0.05 or dropped>1%")
    name = match["name"]
    known = [*SHARES, *COUNTS]
    if name not in known:
        raise OptionError(f"--fail-if: unknown total '{name}'{did_you_mean(name, known)}; known are {', '.join(known)}")
    if match["percent"] and name not in SHARES and COUNTS[name] is None:
        raise OptionError(f"--fail-if: {written}: {name} is a count of nothing larger, so it has no percentage")
    return Limit(written, name, match["sign"], float(match["number"]), bool(match["percent"]))
