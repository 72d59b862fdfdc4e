"""What became of the rows: counts, reasons and some rows of each, as lines for the screen.  Knows no token's meaning."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.data.keeping.prepare import PreparedRows


@dataclass(slots=True)
class Tally:
    """How many rows something happened to, and the first of them."""

    count: int = 0
    rows: list[str] = field(default_factory=list)

    def add(self, rows: Sequence[str], named: int, count: int | None = None) -> None:
        """Count `rows`, or `count` of which only these are known; of all, the first `named` are remembered."""
        self.count += len(rows) if count is None else count
        self.rows += rows[: max(named - len(self.rows), 0)]

    def __str__(self) -> str:
        return _told(self.count, self.rows)


@dataclass(slots=True)
class Longest:
    """How many rows were too long, and the longest of them."""

    count: int = 0
    longest: list[tuple[str, int]] = field(default_factory=list)
    """Rows and their tokens, the longest first."""

    def add(self, rows: Iterable[tuple[str, int]], named: int, count: int) -> None:
        """Count `count` rows, of which these are known; of all, the `named` longest are remembered."""
        self.count += count
        self.longest = sorted([*self.longest, *rows], key=lambda row: -row[1])[:named]

    @property
    def rows(self) -> list[str]:
        """The longest rows and their tokens, in words."""
        return [f"{row}: {tokens:,} tokens" for row, tokens in self.longest]

    def __str__(self) -> str:
        return _told(self.count, self.rows)


def _told(count: int, rows: Sequence[str]) -> str:
    more = ", ..." if count > len(rows) else ""
    return f"{count:,} ({', '.join(rows)}{more})" if rows else f"{count:,}"


@dataclass(slots=True)
class Tallies:
    """What happened to rows on the way to samples."""

    read: dict[str, int] = field(default_factory=dict)
    """Rows read, by dataset."""
    dropped: dict[str, Tally] = field(default_factory=dict)
    """Rows left out, by reason."""
    cut: Longest = field(default_factory=Longest)
    """Rows shortened to `cutoff_len`."""
    divided: Tally = field(default_factory=Tally)
    """Rows split into several samples."""
    unfilled: dict[str, list[str]] = field(default_factory=dict)
    """Placeholders without a value, by dataset."""
    varied: dict[str, int] = field(default_factory=dict)
    """Variations that were added, under `rows`, and how many of them have which change."""

    def count(self, dataset: str, prepared: PreparedRows, named: int) -> None:
        """Count some rows of a dataset."""
        self.read[dataset] = self.read.get(dataset, 0) + prepared.read
        for reason, row in prepared.dropped:
            self.dropped.setdefault(reason, Tally()).add([row], named)
        self.cut.add(prepared.cut, named, len(prepared.cut))
        self.divided.add([f"{row}: {samples} samples" for row, samples in prepared.split], named)
        self._vary(prepared.varied)
        if prepared.unfilled:
            self.unfilled[dataset] = sorted({*self.unfilled.get(dataset, ()), *prepared.unfilled})

    def add(self, more: "Tallies", named: int) -> None:
        """Add what was counted elsewhere."""
        for dataset, rows in more.read.items():
            self.read[dataset] = self.read.get(dataset, 0) + rows
        for reason, tally in more.dropped.items():
            self.dropped.setdefault(reason, Tally()).add(tally.rows, named, tally.count)
        self.cut.add(more.cut.longest, named, more.cut.count)
        self.divided.add(more.divided.rows, named, more.divided.count)
        self._vary(more.varied)
        for dataset, keys in more.unfilled.items():
            self.unfilled[dataset] = sorted({*self.unfilled.get(dataset, ()), *keys})

    def _vary(self, more: Mapping[str, int]) -> None:
        for name, count in more.items():
            self.varied[name] = self.varied.get(name, 0) + count

    def lines(self, cutoff_len: int) -> list[str]:
        """What was lost, and why."""
        lines = [f"dropped       {reason}: {tally}" for reason, tally in list(self.dropped.items())[:10]]
        if len(self.dropped) > 10:
            lines.append(f"dropped       for {len(self.dropped) - 10} more reasons")
        if self.cut.count:
            lines.append(f"cut           to cutoff_len {cutoff_len:,}: {self.cut}")
        if self.varied:
            changes = _listed(f"{name} {count:,}" for name, count in sorted(self.varied.items()) if name != "rows")
            lines.append(f"added         {self.varied['rows']:,} variations of prompts ({changes})")
        if self.divided.count:
            lines.append(f"split         to fit cutoff_len {cutoff_len:,}: {self.divided}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> "Tallies":
        """What `as_dict` gave."""
        return cls(
            dict(written["read"]),
            {reason: Tally(**tally) for reason, tally in written["dropped"].items()},
            Longest(written["cut"]["count"], [(row, tokens) for row, tokens in written["cut"]["longest"]]),
            Tally(**written["divided"]),
            dict(written["unfilled"]),
            dict(written["varied"]),
        )


@dataclass(slots=True)
class Report:
    """The way from rows to samples, counted."""

    tallies: Tallies
    cutoff_len: int
    kept: int
    """Rows to train on."""
    evaluated: int
    """Rows to evaluate on."""
    samples: int
    """What is trained on: rows, blocks of plain text, or packed rows."""
    tokens: int
    trained_tokens: int
    """Tokens that are trained; a sample's first never is, as nothing predicts it."""
    longest: int
    """Tokens of the longest sample."""
    mixed: str = ""
    """How often each dataset's samples are trained in an epoch, where they are interleaved."""
    fill_rate: float | None = None
    """Of packed rows: tokens, divided by those there is room for."""
    streamed: bool = False
    """These are the first rows; the others are read while training."""
    held_out: int = 0
    """Rows left out of training since others with their prompt are evaluated on."""

    @property
    def read(self) -> dict[str, int]:
        """Rows read, by dataset."""
        return self.tallies.read

    def lines(self) -> list[str]:
        """The report on one screen."""
        tallies, share = self.tallies, self.trained_tokens / max(self.tokens, 1)
        read = _listed(f"{name} {rows:,}" for name, rows in tallies.read.items())
        lines = [
            f"rows read     {'the first ' if self.streamed else ''}{sum(tallies.read.values()):,} ({read})",
            f"rows kept     {self.kept:,} to train on"
            + (f", {self.evaluated:,} to evaluate" if self.evaluated else ""),
        ]
        lines += tallies.lines(self.cutoff_len)
        if self.held_out:
            lines.append(f"held out      {self.held_out:,} more that ask what rows to evaluate on do")
        if self.mixed:
            lines.append(f"mixed         {self.mixed}")
        lines.append(f"tokens        {self.tokens:,} in {self.samples:,} samples, the longest {self.longest:,}")
        lines.append(f"trained       {self.trained_tokens:,} tokens ({share:.1%})")
        if self.fill_rate is not None:
            lines.append(f"packed        into rows of {self.cutoff_len:,} tokens, {self.fill_rate:.1%} full")
        return lines


def _listed(parts: Iterable[str], most: int = 8) -> str:
    shown: Sequence[str] = list(parts)
    return ", ".join(shown[:most]) + (f", and {len(shown) - most} more" if len(shown) > most else "")
