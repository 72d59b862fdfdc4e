"""What became of the rows: counts, reasons and the first rows of each, as lines for the screen.  Knows no token's meaning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """How many rows something happened to, and the first of them."""

    count: int = 0
    rows: list[str] = field(default_factory=list)

    def add(self, row: str, named: int) -> None:
        """Count a row; the first `named` are remembered."""
        self.count += 1
        if len(self.rows) < named:
            self.rows.append(row)

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.rows) else ""
        return f"{self.count:,} ({', '.join(self.rows)}{more})" if self.rows else f"{self.count:,}"


@dataclass(slots=True)
class Report:
    """The way from rows to samples, counted."""

    named_rows: int = 5
    """Rows named per reason."""
    read: dict[str, int] = field(default_factory=dict)
    """Rows read, by dataset."""
    dropped: dict[str, Tally] = field(default_factory=dict)
    """Rows left out, by reason."""
    cut: Tally = field(default_factory=Tally)
    """Rows shortened to `cutoff_len`."""
    divided: Tally = field(default_factory=Tally)
    """Rows split into several samples."""
    cutoff_len: int = 0
    kept: int = 0
    """Rows to train on."""
    evaluated: int = 0
    """Rows to evaluate on."""
    samples: int = 0
    """What is trained on: rows, or blocks of plain text."""
    tokens: int = 0
    trained_tokens: int = 0
    """Tokens that are trained; a sample's first never is, as nothing predicts it."""
    longest: int = 0
    """Tokens of the longest sample."""

    def drop(self, reason: str, row: str) -> None:
        """Count a row that is left out."""
        self.dropped.setdefault(reason, Tally()).add(row, self.named_rows)

    def shorten(self, row: str, tokens: int) -> None:
        """Count a row that had `tokens` tokens and was shortened."""
        self.cut.add(f"{row}: {tokens:,} tokens", self.named_rows)

    def divide(self, row: str, samples: int) -> None:
        """Count a row that became several samples."""
        self.divided.add(f"{row}: {samples} samples", self.named_rows)

    def lines(self) -> list[str]:
        """The report on one screen."""
        share = self.trained_tokens / max(self.tokens, 1)
        lines = [
            f"rows read     {sum(self.read.values()):,} ({_listed(f'{name} {n:,}' for name, n in self.read.items())})",
            f"rows kept     {self.kept:,} to train on"
            + (f", {self.evaluated:,} to evaluate" if self.evaluated else ""),
        ]
        lines += [f"dropped       {reason}: {tally}" for reason, tally in self.dropped.items()]
        if self.cut.count:
            lines.append(f"cut           to cutoff_len {self.cutoff_len:,}: {self.cut}")
        if self.divided.count:
            lines.append(f"split         to fit cutoff_len {self.cutoff_len:,}: {self.divided}")
        lines.append(f"tokens        {self.tokens:,} in {self.samples:,} samples, the longest {self.longest:,}")
        lines.append(f"trained       {self.trained_tokens:,} tokens ({share:.1%})")
        return lines


def _listed(parts: Iterable[str], most: int = 8) -> str:
    shown: Sequence[str] = list(parts)
    return ", ".join(shown[:most]) + (f", and {len(shown) - most} more" if len(shown) > most else "")
