"""The rows that a user wants to see, found in the data and taken apart.  Knows datasets and a run's inputs; knows no screen."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tunesmith.config.load import Loaded
from tunesmith.data.pipeline import KINDS
from tunesmith.data.reading.augment import Augmenter
from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader
from tunesmith.data.reading.sources import Dataset, find_datasets
from tunesmith.data.telling.inspect import MARKS, SeenRow, SeenSample, Witness, find_row, see
from tunesmith.look.tokens import Segment, segments_of
from tunesmith.train.inputs import Inputs


@dataclass(frozen=True, slots=True)
class ShownSample:
    """A sample and its segments."""

    seen: SeenSample
    segments: Sequence[Segment]


@dataclass(frozen=True, slots=True)
class ShownRow:
    """What became of a row."""

    seen: SeenRow
    samples: Sequence[ShownSample]

    def facts(self, sample: ShownSample | None = None) -> str:
        """What there is to say about the row and one of its samples, in a few words."""
        if self.seen.dropped:
            return f"left out: {self.seen.dropped}"
        shown = sample or self.samples[0]
        facts = [MARKS[shown.seen.mark], f"{len(shown.seen.ids):,} tokens", f"{shown.seen.trained_tokens:,} trained"]
        if self.seen.whole_tokens:
            facts.append(f"cut from {self.seen.whole_tokens:,}")
        if len(self.samples) > 1:
            number = next(number for number, each in enumerate(self.samples, start=1) if each is shown)
            facts.append(f"sample {number} of {len(self.samples)}")
        return ", ".join(filter(None, facts))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "row": self.seen.where,
            "dropped": self.seen.dropped,
            "whole_tokens": self.seen.whole_tokens,
            "samples": [
                ({} if sample.seen.weights is None else {"weights": sample.seen.weights.tolist()})
                | {
                    "mark": MARKS[sample.seen.mark] or None,
                    "tokens": [
                        {"id": token.id, "text": token.text, "speaker": segment.speaker, "trained": segment.trained}
                        for segment in sample.segments
                        for token in segment.tokens
                    ],
                    "cut": [{"before": place, "tokens": tokens} for place, tokens in sample.seen.gaps.items()],
                }
                for sample in self.samples
            ],
        }


def titled(rows: Sequence[ShownRow]) -> list[tuple[str, Sequence[Segment]]]:
    """Each sample of the rows, with a title."""
    found: list[tuple[str, Sequence[Segment]]] = []
    for row in rows:
        found += [(f"{row.seen.where}: {row.facts(sample)}", sample.segments) for sample in row.samples]
        if not row.samples:
            found.append((f"{row.seen.where}: {row.facts()}", ()))
    return found


class Rows:
    """The rows of a run's data."""

    def __init__(self, loaded: Loaded, inputs: Inputs):
        data = loaded.config.data
        folders = [file.parent for file in loaded.files]
        with contextlib.redirect_stderr(io.StringIO()):  # how files are read was said when they were prepared
            self.datasets = find_datasets(
                [*data.dataset, *data.eval_dataset], data.dataset_dir, folders, streaming=data.streaming
            )
        self.trained = self.datasets[: len(data.dataset)]
        train = loaded.config.train
        self.augmenter = Augmenter.of(data, train.seed if train.data_seed is None else train.data_seed)
        self.placeholders = data.placeholders
        self.kind = KINDS[loaded.config.train.stage]
        self.witness = Witness(inputs.tokenizer, inputs.chat, data)
        self.tokenizer = inputs.tokenizer
        self.cut = inputs.prepared.report.tallies.cut.longest

    def named(self, names: str) -> list[ShownRow]:
        """The rows that `--row` names, separated by commas.  Raises OptionError or DataError for one that is not there."""
        return [self._shown(*find_row(self.datasets, name)) for name in names.split(",")]

    def first(self, count: int) -> list[ShownRow]:
        """The first rows of all datasets."""
        share = -(-count // len(self.datasets))
        found = [(dataset, row) for dataset in self.datasets for row in islice(dataset.source.read(), share)]
        return [self._shown(dataset, row) for dataset, row in found[:count]]

    def worst_cut(self, count: int) -> list[ShownRow]:
        """The longest of the rows that were cut."""
        names = [row.rsplit(" row ", 1) for row, _ in self.cut[:count]]
        return [self._shown(*find_row(self.datasets, f"{file}:{number}")) for file, number in names]

    def _shown(self, dataset: Dataset, row: Row) -> ShownRow:
        augmenter = self.augmenter if dataset in self.trained else None
        seen = see(row, Reader(dataset.shape, self.placeholders, augmenter=augmenter), self.kind, self.witness)
        return ShownRow(seen, [ShownSample(sample, segments_of(sample, self._decode)) for sample in seen.samples])

    def _decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
