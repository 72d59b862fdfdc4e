"""Rows that are read, shuffled and encoded while training, and go on exactly from any place.  Knows groups of rows and what
they become; knows no model and no file's form.

Rows are shuffled before they are encoded, so the seed and the epoch's number alone say which rows a group holds.  To go
on from a place, the rows before its group are read and forgotten, and only the group itself is encoded again.
"""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tunesmith.config.data import DataConfig
from tunesmith.data.batching.pack import Filled, filled
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.keeping.arrays import VARIED, ArraySamples, Rows, joined
from tunesmith.data.keeping.key import shaping_options
from tunesmith.data.keeping.prepare import Kind, PreparedRows, Workers
from tunesmith.data.reading.augment import Augmenter
from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader
from tunesmith.data.reading.raw_rows import RawRows
from tunesmith.data.reading.sources import Shape
from tunesmith.data.telling.report import Tallies
from tunesmith.log import DataError
from tunesmith.templates.conversation import Conversation

GROUP_ROWS, FILLED_GROUP_ROWS = 1024, 4096
"""Rows of a group: what is encoded again at most when a run goes on, and among what neighbours in a packed row are found."""

FIRST_GROUPS = 8
"""Groups that are looked through for the first token to train."""


class Place(NamedTuple):
    """How far a stream has been used."""

    epoch: int = 0
    group: int = 0
    """The group's number in its epoch, from 0."""
    used: int = 0
    """Samples of the group that were used."""
    samples: int = 0
    """Samples that it has."""
    epoch_rows: int = 0
    """Rows of an epoch; 0 until one has been read to its end."""


@dataclass(slots=True)
class Group:
    """What some rows became."""

    place: Place
    """Its beginning."""
    samples: Filled
    order: np.ndarray
    """The samples' numbers in the order in which they are trained."""
    tallies: Tallies
    kept: int
    """Rows that are trained."""
    held_out: int
    """Rows that ask what rows to evaluate on do."""


@dataclass(slots=True)
class _Raw:
    """A group whose rows are being encoded."""

    place: Place
    parts: int
    """Chunks in which they are."""
    read: Counter[str]
    """Its rows, by dataset."""


class MixedReader(Reader):
    """Reads each row as its own dataset's shape says."""

    def __init__(self, shapes: Sequence[Shape], placeholders: dict[str, Any], augmenter: Augmenter | None):
        super().__init__(shapes[0], placeholders, augmenter=augmenter)
        self.readers = [Reader(shape, placeholders, self.unfilled) for shape in shapes]

    def conversation(self, row: Row) -> Conversation:
        return self.readers[row.dataset].conversation(row)

    def pair(self, row: Row) -> tuple[Conversation, Conversation]:
        return self.readers[row.dataset].pair(row)

    def judged(self, row: Row) -> tuple[Conversation, bool]:
        return self.readers[row.dataset].judged(row)

    def text(self, row: Row) -> str:
        return self.readers[row.dataset].text(row)


@dataclass(slots=True)
class Stream:
    """Samples without end, epoch after epoch."""

    cfg: DataConfig
    kind: Kind
    rows: RawRows
    encoder: Encoder
    workers: int
    held_out: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Keys of the prompts that are evaluated."""
    name: str = field(init=False)
    group_rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.name = ", ".join(dict.fromkeys(dataset.name for dataset in self.rows.datasets))
        self.group_rows = FILLED_GROUP_ROWS if self.cfg.packing or self.kind == "text" else GROUP_ROWS

    def hold_out(self, rows: int) -> ArraySamples:
        """The samples of the first `rows` rows that can be used; from now on, all rows with one of their prompts are left
        out.  Raises DataError when there are no more rows than those."""
        parts, found, stream = list[Rows](), 0, self
        if self.rows.until == "interleave_over":  # a row that comes again is evaluated once
            stream = replace(self, rows=replace(self.rows, until="interleave_once"))
        for place, samples, _ in stream._encoded(Place(), workers=1):
            if place.epoch:
                raise DataError(f"val_size: {rows} of {found} rows leaves nothing to train on")
            parts.append(samples.rows)
            found += samples.source_rows()
            if found >= rows:
                break
        together = ArraySamples(joined(parts))
        own = together.marks != VARIED
        chosen = together.choose(np.flatnonzero((_row_numbers(together.rows) < rows) & own))
        self.held_out = np.unique(chosen.keys)
        return chosen

    def first(self) -> Group:
        """The first group of which something is trained; it tells of the rows before it too.  Raises DataError when there is
        none near the beginning."""
        tallies, kept, held_out = Tallies(), 0, 0
        limit = FIRST_GROUPS + int(self.cfg.val_size) // self.group_rows
        for group in islice(self.groups(Place(), workers=1), limit):
            if group.place.epoch:
                break
            tallies.add(group.tallies, self.cfg.max_reported_rows)
            kept, held_out = kept + group.kept, held_out + group.held_out
            if group.samples.trained_tokens():
                group.tallies, group.kept, group.held_out = tallies, kept, held_out
                return group
        what = [f"{sum(tallies.read.values()):,} rows were read ({self.name})", *tallies.lines(self.cfg.cutoff_len)]
        what += [f"{held_out:,} held out by val_size"] if held_out else []
        raise DataError("no token would be trained: " + "; ".join(what))

    def groups(self, start: Place, workers: int | None = None) -> Iterator[Group]:
        """Groups without end, from that of `start` on; several `workers` encode ahead."""
        for place, samples, tallies in self._encoded(start, workers or self.workers):
            kept = samples.choose(np.flatnonzero(~np.isin(samples.keys, self.held_out)))
            rows = filled(kept, self.kind, self.cfg.cutoff_len, self.cfg.packing, self.rows.seed)
            order = np.arange(len(rows))
            if self.cfg.packing and not self.cfg.disable_shuffling:  # packing leaves the fullest rows first
                order = np.random.default_rng([self.rows.seed, place.epoch, place.group]).permutation(len(rows))
            trained = kept.source_rows()
            yield Group(
                place._replace(samples=len(rows)), rows, order, tallies, trained, samples.source_rows() - trained
            )

    def fingerprint(self, first: Group) -> str:
        """Hash of the first samples, of the files' sizes, and of all that shapes and orders what follows."""
        datasets = [
            [each.name, each.source.size_bytes, each.num_samples, each.weight, asdict(each.shape)]
            for each in self.rows.datasets
        ]
        rows = self.rows
        order = [rows.most, rows.until, rows.shares, rows.buffer_size, rows.seed, self.held_out.tolist()]
        parts = [first.samples.fingerprint(), self.group_rows, datasets, order, shaping_options(self.cfg)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _encoded(self, start: Place, workers: int) -> Iterator[tuple[Place, ArraySamples, Tallies]]:
        """Encoded groups as they are read."""
        begun, parts = deque[_Raw](), list[PreparedRows]()
        augmenter = Augmenter.of(self.cfg, self.rows.seed)
        reader = MixedReader([dataset.shape for dataset in self.rows.datasets], self.cfg.placeholders, augmenter)
        with Workers(
            workers, self.encoder, kind=self.kind, strict=self.cfg.strict, chunk_rows=self.cfg.preprocessing_batch_size
        ) as encoding:
            for prepared in encoding.prepare_chunks(self._chunks(start, begun), reader):
                parts.append(prepared)
                if len(parts) == begun[0].parts:
                    raw = begun.popleft()
                    yield raw.place, ArraySamples(joined(part.rows for part in parts)), self._tallies(raw, parts)
                    parts.clear()

    def _chunks(self, start: Place, begun: deque[_Raw]) -> Iterator[list[Row]]:
        """Raw rows in chunks, none over a group's end; the groups are noted in `begun`."""
        names, size = [dataset.name for dataset in self.rows.datasets], self.cfg.preprocessing_batch_size
        epoch, number, epoch_rows = start.epoch, start.group, start.epoch_rows
        while True:
            rows = self.rows.epoch(epoch)
            next(islice(rows, number * self.group_rows, number * self.group_rows), None)
            while group := list(islice(rows, self.group_rows)):
                if len(group) < self.group_rows:
                    epoch_rows = number * self.group_rows + len(group)
                chunks = [group[at : at + size] for at in range(0, len(group), size)]
                read = Counter(names[row.dataset] for row in group)
                begun.append(_Raw(Place(epoch, number, epoch_rows=epoch_rows), len(chunks), read))
                yield from chunks
                number += 1
            epoch_rows = epoch_rows or number * self.group_rows
            epoch, number = epoch + 1, 0

    def _tallies(self, raw: _Raw, parts: Sequence[PreparedRows]) -> Tallies:
        tallies = Tallies()
        for part in parts:
            tallies.count(self.name, part, self.cfg.max_reported_rows)
        tallies.read = dict(raw.read)
        return tallies


def _row_numbers(rows: Rows) -> np.ndarray:
    """For each sample, how many rows of the data came before its own.  int64 [samples]."""
    another = np.any([np.diff(rows.file_of, prepend=-1), np.diff(rows.numbers, prepend=0)], axis=0)
    return np.cumsum(another) - 1
