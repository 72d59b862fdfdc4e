"""Hears from every process of a run, finds the one that stands still or is gone, and tells once why the run ends.  Knows what
`watch.py` sends; knows nothing of training.

Runs in the launcher; under a torchrun that the user starts, in a small process of its own beside rank 0, so that it lives on
when any of the run's own processes is stopped or killed.
"""

import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunesmith import language, log

SECONDS_BETWEEN = 1.0
"""How often each process is heard of, at least."""

SETTLING_SECONDS = 1.0
"""How long other processes get to say why they end, once one has."""

SILENT_SECONDS = 30.0
"""A process that was not heard of for so long does not answer."""

STATES = {
    "T": "it was stopped by a signal such as SIGSTOP",
    "D": "it waits for a disk or a device",
}
"""What the system says of a process that does not run."""

WAITING_PLACES = (
    "torch/distributed/",
    "torch/nn/parallel/distributed.py",
    "torch/autograd/graph.py",
    "train/runtime.py",
)
"""Files in which a process stands that waits for others, between two of our own marks."""


@dataclass(slots=True)
class Rank:
    """What is known of one process."""

    heard: float = 0.0
    """When it was last heard of, on the hub's clock."""
    host: str = ""
    pid: int = 0
    step: int = 0
    meetings: int = 0
    """How often it has waited for others, the present time included."""
    waited: float = 0.0
    """Seconds it has been waiting for others; 0: it is at work."""
    stack: list[str] = field(default_factory=list)
    line: socket.socket | None = None
    error: str | None = None
    is_consequence: bool = False
    """Its error says only that another is gone."""
    code: int | None = None
    """What it ended with, or said it would."""
    is_gone: bool = False
    """It ended without a word."""
    signum: int = 0
    """The signal that ended it, where somebody knows."""

    @property
    def is_present(self) -> bool:
        return self.line is not None and self.code is None and not self.is_gone


@dataclass(frozen=True, slots=True)
class End:
    """Why a run ends: what is to be told, if nobody has yet; the exit code; whether nobody is waited for."""

    text: str | None
    code: int
    at_once: bool = False


class Hub:
    """Listens from its making on; `serve` must be called all the time, then `verdict`."""

    def __init__(self, count: int, limit_seconds: float, *, everywhere: bool = False, is_parent: bool = False):
        """`limit_seconds`: how long one process may wait for another.  `everywhere`: other machines may connect.
        `is_parent`: `ended` will be called for each process."""
        self.ranks = [Rank() for _ in range(count)]
        self.limit, self._is_parent = limit_seconds, is_parent
        self.token = secrets.token_hex(16)
        self._door = socket.create_server(("" if everywhere else "127.0.0.1", 0), backlog=count)
        self.port: int = self._door.getsockname()[1]
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._door, selectors.EVENT_READ, None)
        self._clock, self._looked = 0.0, time.monotonic()
        self._reason_at: float | None = None
        self.came = 0
        """Processes that have connected so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._ready.get_map().values()):
            self._ready.unregister(key.fileobj)
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()

    @property
    def is_empty(self) -> bool:
        """No process is connected."""
        return all(rank.line is None for rank in self.ranks)

    def serve(self, seconds: float) -> None:
        """Hear what processes say, for so long at the most."""
        for key, _ in self._ready.select(seconds):
            if key.fileobj is self._door:
                line, _ = self._door.accept()
                line.settimeout(5)
                self._ready.register(line, selectors.EVENT_READ, _Caller(line))
            else:
                self._hear(key.data)
        now = time.monotonic()
        # Time in which this process itself was stopped is nobody's silence.
        self._clock += min(now - self._looked, seconds + SECONDS_BETWEEN)
        self._looked = now

    def ended(self, number: int, returncode: int) -> None:
        """The system says that a process has ended; minus a signal's number where one ended it."""
        rank = self.ranks[number]
        if rank.code is None:
            if returncode < 0:
                rank.is_gone, rank.signum = True, -returncode
            else:
                rank.code, rank.is_gone = returncode, False
            self._note_reason(rank)

    def end(self, why: End) -> None:
        """Have all processes end that can be reached."""
        order = json.dumps({"end": why.code, "at_once": why.at_once, "text": why.text}).encode() + b"\n"
        for rank in self.ranks:
            if rank.line is not None:
                with contextlib.suppress(OSError):
                    rank.line.sendall(order)

    # -- what is made of it

    def verdict(self) -> End | None:
        """Why the run must end; None: it need not, or more is to be heard first."""
        if self._reason_at is not None:
            if not all(map(self._has_ended, self.ranks)) and self._clock - self._reason_at < SETTLING_SECONDS:
                return None
            return self._ended()
        return self._stalled()

    def _has_ended(self, rank: Rank) -> bool:
        return rank.code is not None or (rank.is_gone and (rank.signum != 0 or not self._is_parent))

    def _ended(self) -> End | None:
        for number, rank in enumerate(self.ranks):
            if rank.is_gone:
                return End(self._killed(number, rank), 128 + (rank.signum or signal.SIGKILL))
        told = [rank for rank in self.ranks if rank.error is not None and not rank.is_consequence]
        if told:
            # What all have found is told as that of rank 0, and so is what only rank 0 has.
            first = told[0]
            alike = first is self.ranks[0] or sum(rank.error == first.error for rank in told) > 1
            text = f"{first.error}" if alike else f"rank {self.ranks.index(first)}: {first.error}"
            return End(text, first.code or 1)
        codes = [rank.code for rank in self.ranks if rank.code and rank.error is None]
        if codes:
            return End(None, codes[0])
        lost = next((rank for rank in self.ranks if rank.error is not None), None)
        return End(f"rank {self.ranks.index(lost)} has lost the other processes: {lost.error}", 1) if lost else None

    def _stalled(self) -> End | None:
        silent = [rank for rank in self.ranks if rank.is_present and self._silence(rank) >= self.limit]
        waiting = [rank for rank in self.ranks if rank.is_present and rank.waited >= self.limit - self._early]
        if not silent and not waiting:
            return None
        culprits = silent or self._culprits(max(waiting, key=lambda rank: rank.meetings).meetings)
        return End("\n".join(self._still(self.ranks.index(rank), rank) for rank in culprits), 1, at_once=True)

    @property
    def _early(self) -> float:
        """Seconds before its limit that a process counts as waiting too long, so that it is told in time."""
        return min(3 * SECONDS_BETWEEN, self.limit / 4)

    def _silence(self, rank: Rank) -> float:
        return self._clock - rank.heard

    def _culprits(self, meeting: int) -> list[Rank]:
        """Those that others wait for in a meeting; everyone when that can't be told."""
        absent = [rank for rank in self.ranks if rank.line is None and rank.code is None and not rank.is_gone]
        silent = [
            rank for rank in self.ranks if rank.is_present and self._silence(rank) > min(SILENT_SECONDS, self.limit / 2)
        ]
        present = [rank for rank in self.ranks if rank.is_present]
        behind = [rank for rank in present if rank.meetings < meeting]
        working = [
            rank for rank in present if rank.stack and not any(place in rank.stack[-1] for place in WAITING_PLACES)
        ]
        if len(working) == len(present):
            working = []
        return absent + silent or behind or working or present

    # -- how it is told

    def _killed(self, number: int, rank: Rank) -> str:
        who, steps = self._who(rank), self._steps(rank)
        if not rank.signum:
            return f"rank {number} ({who}) is gone without a word: it was killed, most likely for its memory; {steps}"
        name = signal.Signals(rank.signum).name if rank.signum in set(signal.Signals) else str(rank.signum)
        if rank.signum == signal.SIGKILL:
            return f"rank {number} ({who}) was ended by {name}, most likely for its memory; {steps}"
        return f"rank {number} ({who}) was ended by {name}; {steps}"

    def _still(self, number: int, rank: Rank) -> str:
        if rank.line is None:
            return f"rank {number} did not come to the others within {self.limit:.0f} s (ddp_timeout)"
        who, steps = self._who(rank), self._steps(rank)
        if self._silence(rank) > min(SILENT_SECONDS, self.limit / 2):
            told = f"rank {number} ({who}) does not answer for {self._silence(rank):.0f} s; {_state(rank)}; {steps}"
        else:
            told = f"rank {number} ({who}) stands still: others have waited for it for {self.limit:.0f} s (ddp_timeout); {steps}"
        where = ["It was last seen here:", *(f"  {line}" for line in rank.stack)] if rank.stack else []
        return "\n".join([told, *where])

    def _who(self, rank: Rank) -> str:
        return f"process {rank.pid} on {rank.host}" if rank.pid else "before it was heard of"

    def _steps(self, rank: Rank) -> str:
        return f"its last step was {rank.step}" if rank.step else "it had not made a step"

    # -- how it is heard

    def _hear(self, caller: "_Caller") -> None:
        try:
            got = caller.line.recv(1 << 16)
        except OSError:
            got = b""
        if not got:
            self._hang_up(caller)
            return
        *lines, caller.rest = (caller.rest + got).split(b"\n")
        for line in lines:
            try:
                self._take(caller, json.loads(line))
            except (ValueError, LookupError, TypeError):  # a stranger at the door
                self._hang_up(caller)
                return

    def _take(self, caller: "_Caller", said: dict[str, Any]) -> None:
        if caller.number is None:
            if said["token"] != self.token:
                raise ValueError("not one of ours")
            caller.number = int(said["rank"])
            rank = self.ranks[caller.number]
            rank.line, rank.host, rank.pid = caller.line, str(said["host"]), int(said["pid"])
            self.came += 1
        rank = self.ranks[caller.number]
        rank.heard = self._clock
        rank.step, rank.meetings = int(said.get("step", rank.step)), int(said.get("meetings", rank.meetings))
        rank.waited, rank.stack = float(said.get("waited", rank.waited)), list(said.get("stack", rank.stack))
        if "error" in said:
            rank.error, rank.is_consequence = str(said["error"]), bool(said["is_consequence"])
        if "code" in said:
            rank.code = int(said["code"])
            self._note_reason(rank)

    def _hang_up(self, caller: "_Caller") -> None:
        self._ready.unregister(caller.line)
        caller.line.close()
        if caller.number is None:
            return
        rank = self.ranks[caller.number]
        rank.line = None
        if rank.code is None:
            rank.is_gone = True
            self._note_reason(rank)

    def _note_reason(self, rank: Rank) -> None:
        if self._reason_at is None and (rank.code or rank.is_gone):
            self._reason_at = self._clock


@dataclass(slots=True)
class _Caller:
    """Who is at the other end of a line; None before that was said."""

    line: socket.socket
    number: int | None = None
    rest: bytes = b""


def _state(rank: Rank) -> str:
    """What the system says of a process that does not answer, where it is on this machine."""
    letter = ""
    if rank.host == socket.gethostname():
        with contextlib.suppress(OSError):
            letter = Path(f"/proc/{rank.pid}/stat").read_text().rpartition(") ")[2][:1]
    return STATES.get(letter, "it is stopped or out of reach")


def main() -> None:
    """`python -m tunesmith.jobs.hub COUNT SECONDS everywhere|here`: prints port and token, then serves until all have left."""
    count, seconds, place = sys.argv[1:]
    language.speak("auto")
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it ends with those that it listens to
    with Hub(int(count), float(seconds), everywhere=place == "everywhere") as hub:
        print(hub.port, hub.token, flush=True)
        parent, why = os.getppid(), None
        while not (hub.is_empty and (hub.came or os.getppid() != parent)):
            hub.serve(0.2)
            if why is None and (why := hub.verdict()):
                if why.text:
                    log.error(why.text)
                hub.end(why)


if __name__ == "__main__":
    main()
