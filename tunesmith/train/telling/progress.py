"""How far a phase of a run is, on standard error: a live line on a terminal, plain lines elsewhere.  Knows counts.

A phase tells `advance` at each step, which costs about a microsecond: a thread redraws the live line, and a plain line
is printed only now and then.  Rich is imported only for a terminal.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from tunesmith.log import is_speaker

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

REDRAWN_PER_SECOND = 5
PLAIN_SECONDS = 5.0
"""Least time between plain lines that nobody asked for; it grows with the phase, up to a minute."""

_FORMATS = {"loss": ".4f", "eval_loss": ".4f", "lr": ".2e", "epoch": ".2f"}

_MARKS = 64
_MARK_SECONDS = 0.25
"""The rate is taken over the last 64 marks, set at least this far apart: 16 seconds, or 64 long steps."""


class Progress:
    """One phase: `with Progress("training", total, start) as progress: progress.advance(step, loss=..., tokens=...)`.

    `total` 0: unknown.  `start`: steps that were done before this process began; they do not count in rate and time
    left.  Only rank 0 shows anything; `disable` leaves the lines of `report`.
    """

    def __init__(
        self,
        kind: str,
        total: int = 0,
        start: int = 0,
        *,
        disable: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.kind, self.total, self.step = kind, total, start
        self.shown: dict[str, float] = {}
        self._clock = clock
        self._began = clock()
        self._marks: deque[tuple[float, int, int | None]] = deque(maxlen=_MARKS)
        self._mark: tuple[float, int, int | None] = (self._began, start, None)
        self._marks.append((self._began, start, 0 if start == 0 else None))
        self._live = not disable and is_speaker() and _on_terminal()
        self._plain = not disable and is_speaker() and not self._live
        self._said_at = self._began
        self._said_step: int | None = None
        self._closed = False
        if self._live:
            _screen.add(self)

    def advance(self, step: int, *, tokens: int | None = None, **shown: float) -> None:
        """`step` steps are done and, over the whole run, `tokens` tokens; `shown` values stay until they change."""
        now = self._clock()
        self.step = step
        self.shown |= shown
        self._mark = (now, step, self._mark[2] if tokens is None else tokens)
        if now - self._marks[-1][0] >= _MARK_SECONDS:
            self._marks.append(self._mark)
        if self._plain and now - self._said_at >= min(max(PLAIN_SECONDS, (now - self._began) / 20), 60.0):
            self._say(now)

    def rows(self, done: int, total: int) -> None:
        """`advance` for work that learns on the way how much there is."""
        self.total = total
        self.advance(done)

    def report(self, step: int, *, tokens: int | None = None, **shown: float) -> None:
        """`advance` at a log row: where there is no live line, a line is printed."""
        self.advance(step, tokens=tokens, **shown)
        if not self._live and is_speaker() and self._said_step != step:
            self._say(self._clock())

    def close(self) -> None:
        """End the phase; its last state stays on the screen."""
        if self._closed:
            return
        self._closed = True
        if self._live:
            _screen.remove(self)
        elif self._plain and self._said_step is not None and self._said_step != self.step:
            self._say(self._clock())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *trace: object) -> None:
        self.close()

    @property
    def rate(self) -> float | None:
        """Steps per second, lately; None before there is something to go by."""
        (began, first, _), (now, last, _) = self._marks[0], self._mark
        return (last - first) / (now - began) if now > began and last > first else None

    @property
    def token_rate(self) -> float | None:
        """Tokens per second, lately."""
        now, _, last = self._mark
        known = next(((at, tokens) for at, _, tokens in self._marks if tokens is not None), None)
        if last is None or known is None or now <= known[0]:
            return None
        return (last - known[1]) / (now - known[0])

    @property
    def seconds_left(self) -> float | None:
        """Time to the phase's end at the present rate."""
        rate = self.rate
        return max(self.total - self.step, 0) / rate if rate and self.total else None

    def parts(self) -> list[str]:
        """What a line says: count, values, speed, time."""
        count = f"{self.step:,}/{self.total:,}" if self.total else f"{self.step:,}"
        parts = [count] + ([f"{100 * self.step // self.total}%"] if self.total else [])
        parts += [f"{name} {value:{_FORMATS.get(name, '.4g')}}" for name, value in self.shown.items()]
        if (tokens := self.token_rate) is not None:
            parts.append(f"{tokens:,.0f} tokens/s")
        elif (rate := self.rate) is not None:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        spent = _clock_time(self._clock() - self._began)
        left = self.seconds_left
        parts.append(spent if self._closed or left is None else f"{spent} < {_clock_time(left)}")
        return parts

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        parts = self.parts()
        room = options.max_width - len(self.kind) - 3 - len("  ".join(parts))
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{self.kind} ", "bold")
        if self.total and room >= 8:
            full, empty = ("#", ".") if options.ascii_only else ("━", "━")
            width = min(room, 40)
            filled = width * min(self.step, self.total) // self.total
            line.append(full * filled, "green").append(empty * (width - filled), "bright_black").append(" ")
        line.append(parts[0], "cyan")
        for part in parts[1:-1]:
            line.append(f"  {part}")
        line.append(f"  {parts[-1]}", "bright_black")
        yield line

    def _say(self, now: float) -> None:
        self._said_at, self._said_step = now, self.step
        print(f"{self.kind} {'  '.join(self.parts())}", file=sys.stderr, flush=True)


class _Screen:
    """The live lines at the foot of the terminal, one per open phase, the inner one below."""

    def __init__(self) -> None:
        self._open: list[Progress] = []
        self._live: Live | None = None

    def add(self, line: Progress) -> None:
        self._open.append(line)
        if self._live is None:
            self._live = self._start()

    def remove(self, line: Progress) -> None:
        """Take a line off; it is printed a last time above the others."""
        assert self._live is not None, "only lines that were added are removed"
        self._open.remove(line)
        if not self._open:
            self._live.transient = True
            self._live.stop()
        self._live.console.print(line)
        if not self._open:
            self._live = None

    def _start(self) -> "Live":
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(stderr=True),
            get_renderable=self._draw,
            refresh_per_second=REDRAWN_PER_SECOND,
            # A terminal shows both; results that go into a file must not end up here.
            redirect_stdout=sys.stdout.isatty(),
        )
        live.start()
        live.console.show_cursor(True)  # a process that is killed must not leave the terminal without one
        return live

    def _draw(self) -> Any:
        from rich.console import Group

        return Group(*self._open)


_screen = _Screen()


def _on_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _clock_time(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
