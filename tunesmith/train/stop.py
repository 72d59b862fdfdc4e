"""How a run ends early: Ctrl-C and SIGTERM finish the step first.  Knows signals; knows nothing of training."""

import os
import signal
import sys
from types import FrameType

PARTS: dict[int, float] = {signal.SIGINT: 1.0, signal.SIGTERM: 4096.0}
"""What a process adds to a sum over all that got this signal, so that all know which it was."""


def as_part(signum: int | None) -> float:
    """What this process adds to the sum."""
    return 0.0 if signum is None else PARTS[signum]


def of_sum(parts: float) -> int | None:
    """The signal that came to some of the processes; SIGTERM where both did."""
    if parts >= PARTS[signal.SIGTERM]:
        return signal.SIGTERM
    return signal.SIGINT if parts else None


class Interrupted(Exception):
    """Raised on every process where work between steps ends early, because a signal came to some of them."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Stopped(BaseException):
    """Raised by the first signal where there is no step to finish.  Not an Exception, so nothing swallows it."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Stops:
    """Listens for SIGINT and SIGTERM.  The first asks, the second ends the process at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._waiting = False
        self.is_early = True
        """True until there are steps."""

    def listen(self) -> None:
        """Take over both signals; outside `wait_for_step` the first one raises Stopped."""
        before = sys.unraisablehook
        # Raised where Python lets nothing through (a finalizer, a hook at a fork), it is obeyed at the first step instead.
        sys.unraisablehook = lambda told: None if isinstance(told.exc_value, Stopped) else before(told)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._receive)

    def wait_for_step(self) -> None:
        """From here on the first signal only sets `signum`; the loop looks at it between steps."""
        self._waiting = True
        self.is_early = False

    def asked(self) -> int | None:
        """The signal that came, for those who look between steps."""
        return self.signum

    def wait_no_more(self) -> None:
        """From here on the first signal raises again."""
        self._waiting = False

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        if not self._waiting:
            raise Stopped(signum)
