"""Writes a file while the next pieces of it are computed, and brings it to the disk meanwhile.  Knows bytes."""

import os
import queue
import threading
from types import TracebackType
from typing import BinaryIO

AHEAD = 4
"""Pieces that may wait to be written."""

SYNC_BYTES = 64 << 20
"""Bytes after which what was written is sent to the disk, so that the last wait is short."""


class Behind:
    """`write` hands a piece to a thread and returns; leaving waits until all is written, or raises what went wrong."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._waiting: queue.Queue[bytes | memoryview | None] = queue.Queue(AHEAD)
        self._failure: BaseException | None = None
        self._writer = threading.Thread(target=self._write_all, name="writer")
        self._syncer = threading.Thread(target=self._sync_all, name="syncer")
        self._grown = threading.Event()
        self._ended = False

    def __enter__(self) -> "Behind":
        self._writer.start()
        self._syncer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._writer.join()
        self._ended = True
        self._grown.set()
        self._syncer.join()
        if self._failure is not None and problem is None:
            raise self._failure

    def write(self, piece: bytes | memoryview) -> None:
        """Write this piece after those before it; the caller does not touch it any more."""
        if self._failure is not None:
            raise self._failure
        self._waiting.put(piece)

    def _write_all(self) -> None:
        unsynced = 0
        while (piece := self._waiting.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._write(memoryview(piece))
            except OSError as failure:
                self._failure = failure
            unsynced += len(piece)
            if unsynced >= SYNC_BYTES:
                self._grown.set()
                unsynced = 0

    def _write(self, piece: memoryview) -> None:
        while piece:
            piece = piece[self._stream.write(piece) :]

    def _sync_all(self) -> None:
        while not self._ended and self._failure is None:
            self._grown.wait()
            self._grown.clear()
            try:
                os.fdatasync(self._stream.fileno())
            except OSError as failure:
                self._failure = self._failure or failure
