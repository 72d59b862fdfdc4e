"""What can be wrong with data: the table of checks, and what they found.  Knows names, severities and rows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""`error`: the row, or what it teaches, is broken; `warning`: it probably harms; `note`: worth a look."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that can be wrong.  `mended`: what `--fix` does about it; '' for nothing."""

    severity: Severity
    says: str
    mended: str = ""


CHECKS: dict[str, Check] = {
    # The row cannot be trained on.
    "unusable": Check("error", "cannot be read as the dataset is described", "left out"),
    "empty": Check("error", "an empty question, answer or text", "left out"),
    "role_order": Check("error", "questions and answers do not take turns", "ends removed, or left out"),
    "tools": Check("error", "tools or tool calls that are not JSON of the right shape", "Python literals, or left out"),
    "refused": Check("error", "the chat template cannot write it"),
    "no_room": Check("error", "nothing to train is left within cutoff_len"),
    "end_token": Check("error", "answers end without a token that stops them"),
    # What it teaches is not what is meant.
    "overlap": Check("error", "its prompt is in the evaluation data too", "left out"),
    "same_answers": Check("error", "the chosen answer is the rejected one", "left out"),
    "control_token": Check("error", "text that becomes a control token (allow_special_tokens)", "removed from ends"),
    "special_token": Check("warning", "text that looks like a control token; it stays text", "removed from ends"),
    "duplicate": Check("warning", "says the same as an earlier row", "left out"),
    "near_overlap": Check("warning", "nearly the same as a row of the evaluation data"),
    "too_long": Check("warning", "longer than cutoff_len"),
    "repeats_prompt": Check("warning", "the answer repeats the question"),
    "says_nothing": Check("warning", "an answer without a letter or a digit, or a word for nothing"),
    "placeholder": Check("warning", "a placeholder that nobody filled in", "filled in from placeholders"),
    "wrong_encoding": Check("warning", "text that was decoded with a wrong encoding", "decoded rightly"),
    "lost_characters": Check("warning", "characters that a wrong encoding destroyed"),
    # Worth a look.
    "unseen_characters": Check("note", "control, zero-width or direction characters", "removed"),
    "unknown_tool": Check("note", "calls a tool that is not among the row's tools"),
    "near_duplicate": Check("note", "nearly the same as an earlier row"),
    "other_answers": Check("note", "the prompt of an earlier row with another answer"),
    "tiny_answer": Check("note", "an answer of one or two characters"),
    "other_language": Check("note", "an answer in another language than its question"),
    "rare_language": Check("note", "a language that few rows are in"),
}
"""Check -> what it is, the worst first."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row in which something was found.  `row`: file and number; '' when it is about no row.  `detail`: what exactly."""

    row: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.row}: {self.detail}" if self.row and self.detail else self.row or self.detail


@dataclass(slots=True)
class Findings:
    """Everything found in some data."""

    read: dict[str, int] = field(default_factory=dict)
    """Rows read, by dataset."""
    found: dict[str, list[Found]] = field(default_factory=dict)
    """By check."""

    def add(self, check: str, row: str, detail: str = "") -> None:
        """Note what a check found.  What it finds in one row, one thing right after another, is noted together."""
        assert check in CHECKS, f"{check} is no check"
        rows = self.found.setdefault(check, [])
        if rows and rows[-1].row == row:
            detail = f"{rows.pop().detail}, {detail}"
        rows.append(Found(row, detail))

    def ordered(self) -> Iterator[tuple[str, Check, list[Found]]]:
        """The checks that found something, in the table's order."""
        return ((name, check, self.found[name]) for name, check in CHECKS.items() if name in self.found)

    def count(self, severity: Severity) -> int:
        """Checks of a severity that found something."""
        return sum(check.severity == severity for _, check, _ in self.ordered())

    def lines(self, named: int) -> list[str]:
        """What was found, each check with its first `named` rows, and a line that sums up."""
        lines = []
        for name, check, rows in self.ordered():
            about_rows = bool(rows[0].row)
            told = f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'}" if about_rows else rows[0].detail
            lines.append(f"{check.severity}: {name}: {check.says}: {told}")
            lines += [f"    {row}" for row in rows[:named] if about_rows]
            if len(rows) > named:
                lines.append(f"    and {len(rows) - named:,} more")
        kinds: tuple[Severity, ...] = ("error", "warning", "note")
        counts = ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind in kinds if (count := self.count(kind)))
        rows_read = sum(self.read.values())
        return [*lines, f"{rows_read:,} rows ({', '.join(self.read)}): {counts or 'nothing to complain about'}"]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with all rows."""
        return {
            "rows_read": self.read,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "notes": self.count("note"),
            "findings": [
                {
                    "check": name,
                    "severity": check.severity,
                    "says": check.says,
                    "mended_by_fix": check.mended or None,
                    "count": len(rows),
                    "rows": [{"row": each.row, "detail": each.detail} for each in rows],
                }
                for name, check, rows in self.ordered()
            ],
        }
