"""A process's side of the watch over a run: says every second where it stands, and ends when the hub says so.  Knows nothing
of training.

`HERE` is this process's place; those who wait for other processes mark it, at the cost of two assignments.
"""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tunesmith import log
from tunesmith.jobs.hub import SECONDS_BETWEEN

VARIABLE = "TUNESMITH_HUB"
"""`host:port:token` of the launcher's hub, for its workers."""

GRACE_SECONDS = 30.0
"""How long a process may go on that does not wait for others, once the run must end."""

DEEPEST = 30
"""Lines of a stack that are told, the innermost ones."""

CONSEQUENCE = re.compile(
    r"\bgloo\b|\bNCCL\b|\bc10d\b|TCPStore|Dist(Backend|Network|Store)?Error|ncclUnhandled|ProcessGroup"
)
"""What errors say that only tell of another process's end."""


class Here:
    """Where this process stands: `step`, its last; how often it has waited for others, and whether it does."""

    def __init__(self) -> None:
        self.step = 0
        self.meetings = 0
        self.waits = False

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Mark the block as a wait for all other processes."""
        self.meetings += 1
        self.waits = True
        try:
            yield
        finally:
            self.waits = False


HERE = Here()


class Watch:
    """Tells the hub of this process, from a thread of its own."""

    def __init__(self, address: str, rank: int):
        """`address`: `host:port:token`.  Raises OSError when nobody listens there."""
        host, port, token = address.rsplit(":", 2)
        self.rank = rank
        self._line = socket.create_connection((host, int(port)), timeout=30)
        self._line.settimeout(None)
        self._lock = threading.Lock()
        self._main = threading.main_thread().ident
        self._waited, self._mark, self._looked = 0.0, -1, time.monotonic()
        self._order: dict[str, Any] | None = None
        """Set once the run must end: nobody tells anything any more."""
        self._say(token=token, rank=rank, host=socket.gethostname(), pid=os.getpid())
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def failed(self, text: str, code: int) -> None:
        """Have the hub tell why this process ends, unless the run ends for another reason, and end it."""
        if self._order is None and not self._say(error=text, is_consequence=is_consequence(text), code=code):
            log.show_error(text)
        self._leave(code if self._order is None else int(self._order["end"]))

    def left(self, code: int) -> None:
        """Say that this process ends by itself."""
        self._say(code=code)

    def _say(self, **what: Any) -> bool:
        try:
            with self._lock:
                self._line.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            return False
        return True

    def _watch(self) -> None:
        rest = b""
        while True:
            self._count()
            self._say(step=HERE.step, meetings=HERE.meetings, waited=self._waited, stack=self._stack())
            if not select.select([self._line], [], [], SECONDS_BETWEEN)[0]:
                continue
            try:
                got = self._line.recv(1 << 16)
            except OSError:
                got = b""
            if not got:  # the hub is gone, and with it only the watch
                return
            rest += got
            if b"\n" in rest:
                self._end(json.loads(rest.partition(b"\n")[0]))

    def _count(self) -> None:
        """Seconds that this process has been waiting; time in which it was itself stopped is none."""
        now = time.monotonic()
        passed = min(now - self._looked, 2 * SECONDS_BETWEEN)
        still = HERE.waits and self._mark == HERE.meetings
        self._waited = self._waited + passed if still else 0.0
        self._mark, self._looked = HERE.meetings, now

    def _stack(self) -> list[str]:
        """The main thread's, outermost first; and, as far as it waits for another of ours, that one's."""
        assert self._main is not None
        frames = sys._current_frames()
        lines = _lines(frames.get(self._main))
        ahead = next((one.ident for one in threading.enumerate() if one.name == "ahead"), None)
        if ahead is not None and any("data/batching/ahead.py" in line for line in lines[-3:]):
            lines += ["in the thread that builds batches:", *_lines(frames.get(ahead))]
        return lines

    def _end(self, order: dict[str, Any]) -> None:
        """End this process: at once where the order says so, else when it waits for others, who will not come."""
        self._order = order
        if order["text"]:
            log.keep(order["text"])
        deadline = time.monotonic() + (0 if order["at_once"] else GRACE_SECONDS)
        waits_since, mark = time.monotonic(), HERE.meetings
        while time.monotonic() < deadline:
            if not HERE.waits or HERE.meetings != mark:
                waits_since, mark = time.monotonic(), HERE.meetings
            if time.monotonic() - waits_since > 1:
                break
            time.sleep(0.05)
        code = int(order["end"])
        if code in (128 + signal.SIGINT, 128 + signal.SIGTERM) and not order["text"]:
            log.warn("stopped", f"by {signal.Signals(code - 128).name} while this process waited for others")
        self._leave(code)

    def _leave(self, code: int) -> None:
        self._say(code=code)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def join(address: str, rank: int) -> Watch | None:
    """Have this process watched; None, without a watch, when the hub can't be reached."""
    global _watch
    try:
        _watch = Watch(address, rank)
    except OSError as problem:
        log.warn("ddp_timeout", f"processes that stand still can't be told by name: {problem}")
        return None
    log.tell_errors_to(_watch.failed)
    return _watch


_watch: Watch | None = None


def is_joined() -> bool:
    """Whether this process is watched."""
    return _watch is not None


def left(code: int) -> None:
    """Tell the hub, if there is one, that this process ends by itself."""
    if _watch is not None:
        _watch.left(code)


def is_consequence(text: str) -> bool:
    """Whether an error only says that another process is gone."""
    return CONSEQUENCE.search(text) is not None


def open_hub(count: int, seconds: float, host: str, *, everywhere: bool, lang: str) -> str:
    """Start a hub in a process of its own, which tells in `lang`; returns its address for processes that reach this machine
    as `host`."""
    command = [
        sys.executable,
        "-m",
        "tunesmith.jobs.hub",
        str(count),
        str(seconds),
        "everywhere" if everywhere else "here",
    ]
    process = subprocess.Popen(
        command,
        env=os.environ | ({} if lang == "auto" else {"TUNESMITH_LANG": lang}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    port, token = process.stdout.readline().split()
    return f"{host}:{port}:{token}"


def _lines(frame: FrameType | None) -> list[str]:
    found: list[str] = []
    while frame is not None and len(found) < DEEPEST:
        code = frame.f_code
        path = code.co_filename.rpartition("site-packages/")[2]
        found.append(f"{path}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return found[::-1]
