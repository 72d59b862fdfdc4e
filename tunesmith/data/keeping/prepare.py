"""Rows -> a chunk of encoded rows, in this process or in several.  Knows one dataset's shape at a time; knows no file's
place and no split."""

import gc
import multiprocessing.connection
import os
import pickle
import re
import signal
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from tunesmith.data.encoding.cut import Tokens
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.keeping.arrays import BAD, GOOD, PLAIN, VARIED, WEIGHT, Rows
from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader, Unusable
from tunesmith.log import DataError, OutOfMemory
from tunesmith.templates.conversation import Conversation

_SPACES = re.compile(r"\s+")


Kind = Literal["text", "conversation", "pair", "judged"]
"""What a stage makes of a row."""


class EncodedRow(NamedTuple):
    """A row's sample, before many are joined."""

    row: Row
    tokens: Tokens
    key: int
    mark: int


@dataclass(slots=True)
class PreparedRows:
    """What became of some rows."""

    rows: Rows
    read: int
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """Reason and row."""
    cut: list[tuple[str, int]] = field(default_factory=list)
    """Row, and its tokens before it was shortened."""
    split: list[tuple[str, int]] = field(default_factory=list)
    """Row, and the samples it became."""
    unfilled: set[str] = field(default_factory=set)
    """Placeholders that were seen and have no value."""
    varied: dict[str, int] = field(default_factory=dict)
    """Variations that were added, under `rows`, and how many of them have which change."""


@dataclass(slots=True)
class Preparer:
    """Prepares rows; travels to worker processes, so it holds nothing that cannot."""

    encoder: Encoder
    kind: Kind
    strict: bool

    def __call__(self, reader: Reader, rows: list[Row]) -> PreparedRows:
        """Encode rows that `reader` understands.  Raises DataError for a row that is dropped or cut if `strict`."""
        prepared = PreparedRows(flat([]), len(rows))
        prepare = self._texts if self.kind == "text" else self._conversations
        prepared.rows = flat(list(prepare(reader, rows, prepared)))
        prepared.unfilled = set(reader.unfilled)
        if self.strict and (prepared.dropped or prepared.cut):
            raise DataError(_first_problem(prepared))
        return prepared

    def _conversations(self, reader: Reader, rows: list[Row], prepared: PreparedRows) -> Iterator[EncodedRow]:
        read = CONVERSATIONS[self.kind]
        groups, usable, changed = list[tuple[Conversation, ...]](), list[tuple[Row, Marks, int]](), list[Changes]()
        for row in rows:
            try:
                conversations, marks = read(reader, row)
            except Unusable as reason:
                prepared.dropped.append((str(reason), row.where))
                continue
            key = _key(_prompt(conversations[0]))
            made = reader.variations(conversations[0], row)
            groups += [conversations, *((variation,) for variation, _ in made)]
            usable += [(row, marks, key), *((row, (VARIED,), key) for _ in made)]
            changed += [(), *(changes for _, changes in made)]
        outcome = self.encoder.encode(groups)
        told = {
            place for place, (_, marks, _) in enumerate(usable) if marks != (VARIED,)
        }  # of variations, only those are told that are there
        prepared.dropped += [(reason, usable[place][0].where) for place, reason in outcome.dropped if place in told]
        prepared.cut += [(usable[place][0].where, tokens) for place, tokens in outcome.cut if place in told]
        prepared.split += [(usable[place][0].where, samples) for place, samples in outcome.split if place in told]
        prepared.varied = dict(
            Counter(each for place in outcome.kept if place not in told for each in ("rows", *changed[place]))
        )
        for index, samples in zip(outcome.kept, outcome.samples, strict=True):
            row, marks, key = usable[index]
            for tokens, mark in zip(
                samples, marks if len(marks) == len(samples) else marks * len(samples), strict=True
            ):
                yield EncodedRow(row, tokens, key, mark)

    def _texts(self, reader: Reader, rows: list[Row], prepared: PreparedRows) -> Iterator[EncodedRow]:
        texts, usable = list[str](), list[Row]()
        for row in rows:
            try:
                texts.append(reader.text(row))
                usable.append(row)
            except Unusable as reason:
                prepared.dropped.append((str(reason), row.where))
        encoded = self.encoder.encode_texts(texts).rows()
        for row, text, tokens in zip(usable, texts, encoded, strict=True):
            yield EncodedRow(row, tokens, _key(text), PLAIN)


Marks = tuple[int, ...]
Changes = tuple[str, ...]
"""What a variation changes."""

Group = tuple[tuple[Conversation, ...], Marks]
"""What a row says, kept or dropped together, and the mark of each."""


def _alone(reader: Reader, row: Row) -> Group:
    return (reader.conversation(row),), (PLAIN,)


def _pair(reader: Reader, row: Row) -> Group:
    return reader.pair(row), (GOOD, BAD)


def _judged(reader: Reader, row: Row) -> Group:
    conversation, desirable = reader.judged(row)
    return (conversation,), (GOOD if desirable else BAD,)


CONVERSATIONS: dict[Kind, Callable[[Reader, Row], Group]] = {"conversation": _alone, "pair": _pair, "judged": _judged}


def _first_problem(prepared: PreparedRows) -> str:
    if prepared.dropped:
        reason, where = prepared.dropped[0]
        return f"{where}: {reason} (strict: true)"
    where, tokens = prepared.cut[0]
    return f"{where}: has {tokens} tokens, over cutoff_len (strict: true)"


def flat(rows: list[EncodedRow]) -> Rows:
    """Encoded rows as flat arrays."""
    files = list(dict.fromkeys(each.row.file for each in rows))
    trained = np.concatenate([each.tokens[1] for each in rows]) if rows else np.zeros(0, np.bool_)
    whole = trained != 0
    return Rows(
        np.concatenate([each.tokens[0] for each in rows]) if rows else np.zeros(0, np.int32),
        whole,
        np.array([len(each.tokens[0]) for each in rows], dtype=np.int32),
        np.array([np.count_nonzero(each.tokens[1][1:]) for each in rows], dtype=np.int32),
        np.array([files.index(each.row.file) for each in rows], dtype=np.int32),
        np.array([each.row.number for each in rows], dtype=np.int32),
        np.array([each.key for each in rows], dtype=np.uint64),
        np.array([each.mark for each in rows], dtype=np.uint8),
        files,
        None if (trained == whole).all() else np.where(whole, trained, WEIGHT(1)),
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

    def __init__(self, count: int, encoder: Encoder, *, kind: Kind, strict: bool, chunk_rows: int):
        self.count, self.chunk_rows = count, chunk_rows
        self.preparer = Preparer(encoder, kind, strict)
        self.pool: ProcessPoolExecutor | None = None
        self.handed: IO[bytes] | None = None
        """The pickled preparer for workers to read: through their pipe, one would wait until the other has started."""

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *trace: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
        if self.handed is not None:
            self.handed.close()

    def prepare(self, rows: Iterable[Row], reader: Reader) -> Iterator[PreparedRows]:
        """Chunks of prepared rows in the order of the rows; the same whoever prepares them."""
        return self.prepare_chunks(_chunks(iter(rows), self.chunk_rows), reader)

    def prepare_chunks(self, chunks: Iterator[list[Row]], reader: Reader) -> Iterator[PreparedRows]:
        """The same for rows that are in chunks already, of which there may be no end."""
        waiting = deque(islice(chunks, 2 * self.count)) if self.count > 1 and self.pool is None else deque()
        if len(waiting) < 2 * self.count and self.pool is None:
            for chunk in chain(waiting, chunks):
                yield self.preparer(reader, chunk)
            return
        if self.pool is None:
            self.handed = tempfile.NamedTemporaryFile(prefix="tunesmith-")  # noqa: SIM115 - closed when the workers end
            pickle.dump(self.preparer, self.handed)
            self.handed.flush()
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(self.count, spawn, _start_worker, (self.handed.name,))
        ahead: deque[Future[PreparedRows]] = deque()
        try:
            for chunk in chain(waiting, chunks):
                ahead.append(self.pool.submit(_work, reader, chunk))
                if len(ahead) > 2 * self.count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool as reason:
            raise OutOfMemory(
                "a process that prepared rows was killed, most likely for its memory; "
                "fewer preprocessing_num_workers or a smaller preprocessing_batch_size need less"
            ) from reason


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, size)):
        yield chunk


_preparer: Preparer | None = None
"""The worker process's own."""


OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Rows are made of very many small objects, in no circles, among which Python would look for circles all the time."""


def _start_worker(path: str) -> None:
    global _preparer
    _preparer = pickle.loads(Path(path).read_bytes())
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread per worker; the workers are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the parent was killed, which the pool's queue does not tell."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(reader: Reader, rows: list[Row]) -> PreparedRows:
    assert _preparer is not None
    return _preparer(reader, rows)
