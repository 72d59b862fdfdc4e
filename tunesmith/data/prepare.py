"""Rows -> a chunk of encoded rows, in this process or in several.  Knows one dataset's shape at a time; knows no file's
place and no split."""

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, islice
from multiprocessing import get_context

import numpy as np

from tunesmith.data.encode import Encoder
from tunesmith.data.files import Row
from tunesmith.data.formats import Reader, Unusable
from tunesmith.data.store import Chunk
from tunesmith.log import DataError
from tunesmith.templates.conversation import Conversation

_SPACES = re.compile(r"\s+")


@dataclass(slots=True)
class PreparedRows:
    """What became of some rows."""

    chunk: Chunk
    read: int
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """Reason and row."""
    cut: list[tuple[str, int]] = field(default_factory=list)
    """Row, and its tokens before it was shortened."""
    unfilled: set[str] = field(default_factory=set)
    """Placeholders that were seen and have no value."""


@dataclass(slots=True)
class Preparer:
    """Prepares rows; travels to worker processes, so it holds nothing that cannot."""

    encoder: Encoder
    plain_text: bool
    """Rows are texts, not conversations."""
    strict: bool

    def __call__(self, reader: Reader, rows: list[Row]) -> PreparedRows:
        """Encode rows that `reader` understands.  Raises DataError for a row that is dropped or cut if `strict`."""
        prepared = PreparedRows(_chunk([], [], []), len(rows))
        prepare = self._texts if self.plain_text else self._conversations
        prepared.chunk = _chunk(*prepare(reader, rows, prepared))
        prepared.unfilled = set(reader.unfilled)
        if self.strict and (prepared.dropped or prepared.cut):
            raise DataError(_first_problem(prepared))
        return prepared

    def _conversations(self, reader: Reader, rows: list[Row], prepared: PreparedRows) -> "_Encoded":
        conversations, usable = list[Conversation](), list[Row]()
        for row in rows:
            try:
                conversations.append(reader.conversation(row))
                usable.append(row)
            except Unusable as reason:
                prepared.dropped.append((str(reason), row.where))
        outcome = self.encoder.encode(conversations)
        prepared.dropped += [(reason, usable[index].where) for index, reason in outcome.dropped]
        prepared.cut += [(usable[index].where, tokens) for index, tokens in outcome.cut]
        keys = [_key(_prompt(conversations[index])) for index in outcome.kept]
        return [usable[index] for index in outcome.kept], outcome.rows, keys

    def _texts(self, reader: Reader, rows: list[Row], prepared: PreparedRows) -> "_Encoded":
        texts, usable = list[str](), list[Row]()
        for row in rows:
            try:
                texts.append(reader.text(row))
                usable.append(row)
            except Unusable as reason:
                prepared.dropped.append((str(reason), row.where))
        encoded = self.encoder.encode_texts(texts)
        return usable, list(encoded.rows()), [_key(text) for text in texts]


_Encoded = tuple[list[Row], list[tuple[np.ndarray, np.ndarray]], list[int]]


def _first_problem(prepared: PreparedRows) -> str:
    if prepared.dropped:
        reason, where = prepared.dropped[0]
        return f"{where}: {reason} (strict: true)"
    where, tokens = prepared.cut[0]
    return f"{where}: has {tokens} tokens, over cutoff_len (strict: true)"


def _chunk(rows: list[Row], encoded: list[tuple[np.ndarray, np.ndarray]], keys: list[int]) -> Chunk:
    files = list(dict.fromkeys(row.file for row in rows))
    return Chunk(
        np.concatenate([ids for ids, _ in encoded]) if encoded else np.zeros(0, np.int32),
        np.concatenate([trained for _, trained in encoded]) if encoded else np.zeros(0, bool),
        np.array([len(ids) for ids, _ in encoded], dtype=np.int32),
        files,
        np.array([files.index(row.file) for row in rows], dtype=np.int32),
        np.array([row.number for row in rows], dtype=np.int32),
        np.array(keys, dtype=np.uint64),
    )


def _prompt(conversation: Conversation) -> str:
    """What is asked: everything before the last answer."""
    return "\0".join(message.content for message in conversation.messages[:-1])


def _key(text: str) -> int:
    """A number that equal texts share, white space aside."""
    return int.from_bytes(
        blake2b(_SPACES.sub(" ", text).strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


class Workers:
    """Runs a preparer on chunks of rows: in this process, or in `count` others once there is enough to do for them."""

    def __init__(self, count: int, encoder: Encoder, *, plain_text: bool, strict: bool, chunk_rows: int):
        self.count, self.chunk_rows = count, chunk_rows
        self.preparer = Preparer(encoder, plain_text, strict)
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *trace: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def prepare(self, rows: Iterable[Row], reader: Reader) -> Iterator[PreparedRows]:
        """Chunks of prepared rows in the order of the rows; the same whoever prepares them."""
        chunks = _chunks(iter(rows), self.chunk_rows)
        waiting = deque(islice(chunks, 2 * self.count)) if self.count > 1 and self.pool is None else deque()
        if len(waiting) < 2 * self.count and self.pool is None:
            for chunk in chain(waiting, chunks):
                yield self.preparer(reader, chunk)
            return
        if self.pool is None:
            self.pool = ProcessPoolExecutor(self.count, get_context("spawn"), _start_worker, (self.preparer,))
        ahead: deque[Future[PreparedRows]] = deque()
        for chunk in chain(waiting, chunks):
            ahead.append(self.pool.submit(_work, reader, chunk))
            if len(ahead) > 2 * self.count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, size)):
        yield chunk


_preparer: Preparer | None = None
"""The worker process's own."""


def _start_worker(preparer: Preparer) -> None:
    global _preparer
    _preparer = preparer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread per worker; the workers are the parallelism


def _work(reader: Reader, rows: list[Row]) -> PreparedRows:
    assert _preparer is not None
    return _preparer(reader, rows)
