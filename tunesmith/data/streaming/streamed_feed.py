"""A stream of samples -> windows, exact from any place.  Knows a stream and a division; knows no model and no device."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tunesmith import log
from tunesmith.data.batching.batches import PADDED, Window, batch_of
from tunesmith.data.batching.division import Division
from tunesmith.data.sample import Layout, Sample, Samples
from tunesmith.data.streaming.stream import Group, Place, Stream
from tunesmith.data.telling.report import Tallies
from tunesmith.log import DataError


class Chosen:
    """Samples taken from several groups."""

    def __init__(self, members: Sequence[tuple[Samples, int]]):
        self.members = members
        self.lengths = np.array([samples.lengths[index] for samples, index in members], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Sample:
        samples, place = self.members[index]
        return samples[place]

    def where(self, index: int) -> str:
        """File and row it came from."""
        samples, place = self.members[index]
        return samples.where(place)


class StreamedFeed:
    """Windows of rows that are read while training.  All hold equally many rows (or, with `token_budget`, about as many
    tokens): they go on over the ends of groups and epochs."""

    per_epoch: int | None = None

    def __init__(self, stream: Stream, division: Division):
        self.stream, self.division = stream, division
        self.tallies = Tallies()
        """Of the rows in use so far, each counted once."""
        self.held_out = 0
        self.repeating = False
        """Rows are those of a later epoch than this feed's first."""

    def windows(
        self, step: int, place: Sequence[int], *, rank: int, pad_id: int, layout: Layout = PADDED
    ) -> Iterator[Window]:
        """See `Feed`.  Raises DataError for files that cannot be read, for rows that `strict` refuses, and for an epoch of
        which nothing can be trained."""
        if step:
            log.note(
                "streaming", f"going on in epoch {Place(*place).epoch + 1}; rows before are read, not encoded, again"
            )
        taken = list[tuple[Samples, int]]()
        room = full = self._size()
        for samples, index, behind in self._samples(Place(*place)):
            taken.append((samples, index))
            room -= int(samples.lengths[index]) if self._by_tokens else 1
            if room <= 0:
                chosen = Chosen(taken)
                shares = self.division.micro_batches(np.arange(len(chosen)), chosen.lengths, rank)
                batches = [batch_of(chosen, share, pad_id, layout) for share in shares]
                yield Window(behind.epoch, step, batches, chosen.where, behind)
                step, taken, room = step + 1, [], full

    def epochs(self, step: int, place: Sequence[int]) -> float:
        """Passes over the data: whole ones until an epoch's end has been seen."""
        here, size = Place(*place), self.stream.group_rows
        if not here.epoch_rows:
            return float(here.epoch)
        before = here.group * size
        within = min(size, here.epoch_rows - before)
        return here.epoch + (before + within * here.used / max(here.samples, 1)) / here.epoch_rows

    def lines(self) -> list[str]:
        read = sum(self.tallies.read.values())
        again = ", and again in later epochs" if self.repeating else ""
        held_out = [f"held out      {self.held_out:,} that ask what rows to evaluate on do"] if self.held_out else []
        lost = self.tallies.lines(self.stream.cfg.cutoff_len)
        return [f"rows read     {read:,} while training{again}", *lost, *held_out]

    @property
    def _by_tokens(self) -> bool:
        return self.division.way == "token_budget"

    def _size(self) -> int:
        """Rows of a window, or its tokens."""
        return self.division.window_rows * (self.division.row_tokens if self._by_tokens else 1)

    def _samples(self, start: Place) -> Iterator[tuple[Samples, int, Place]]:
        """Samples without end, and the place behind each."""
        used, last_epoch = start.used, start.epoch
        # Rows are encoded by a thread while the model is trained, evaluated and saved, for which the tokenizer is needed
        # too: a tokenizer has a state, so the thread gets its own.
        stream = replace(self.stream, encoder=pickle.loads(pickle.dumps(self.stream.encoder)))
        for group in stream.groups(start):
            self._count(group, start)
            if group.place.epoch > last_epoch + 1:
                raise DataError(f"{self.stream.name}: nothing of a whole epoch can be trained")
            for number, index in list(enumerate(group.order.tolist(), start=1))[used:]:
                last_epoch = group.place.epoch
                yield group.samples, index, group.place._replace(used=number)
            used = 0

    def _count(self, group: Group, start: Place) -> None:
        self.repeating = group.place.epoch > start.epoch
        if not self.repeating:
            self.tallies.add(group.tallies, self.stream.cfg.max_reported_rows)
            self.held_out += group.held_out
