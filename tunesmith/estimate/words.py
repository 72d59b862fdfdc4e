"""Times and money in words.  Knows numbers; knows no run."""

from tunesmith.estimate.work import Range


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `4.2 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def durations(seconds: Range) -> str:
    """`about 12 min (8 min to 30 min)`."""
    return f"about {duration(seconds.likely)} ({duration(seconds.low)} to {duration(seconds.high)})"


def money(cost: Range, currency: str) -> str:
    """`USD 1.20 (0.80 to 3.10)`."""
    return f"{currency} {cost.likely:,.2f} ({cost.low:,.2f} to {cost.high:,.2f})"
