"""Datasets -> prepared rows, dataset by dataset, with the count of what became of each row.  Knows readers and workers;
knows no store and no split."""

from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.keeping.arrays import Rows
from tunesmith.data.keeping.prepare import Kind, Workers
from tunesmith.data.reading import mix
from tunesmith.data.reading.augment import Augmenter
from tunesmith.data.reading.formats import Reader
from tunesmith.data.reading.sources import Dataset
from tunesmith.data.telling.outlook import Outlook
from tunesmith.data.telling.report import Tallies
from tunesmith.log import DataError, OptionError

_CALLED: dict[Kind, str] = {
    "text": "texts",
    "conversation": "conversations",
    "pair": "preference pairs (ranking: true)",
    "judged": "answers with a label (kto_tag)",
}


SAMPLES = "samples"


class Gatherer:
    """Prepares the rows of datasets with one encoder and one set of workers."""

    def __init__(self, cfg: DataConfig, kind: Kind, seed: int, encoder: Encoder, workers: Workers, outlook: Outlook):
        self.cfg, self.kind, self.seed = cfg, kind, seed
        self.encoder, self.workers, self.outlook = encoder, workers, outlook

    def check(self, datasets: Sequence[Dataset]) -> None:
        """Raise OptionError for datasets the stage cannot use."""
        for dataset in datasets:
            holds: Kind = _holds(dataset)
            if self.kind not in ("text", holds):
                raise OptionError(
                    f"dataset: {dataset.name} holds {_CALLED[holds]}, and this stage needs {_CALLED[self.kind]}"
                )

    def prepare(
        self, datasets: Sequence[Dataset], augmenter: Augmenter | None = None
    ) -> Iterator[Rows | dict[str, Any]]:
        """Prepared rows of the datasets, one after another, with the augmenter's variations behind each, and at last the tallies as a dict, with the number of
        samples of each dataset under SAMPLES.  Raises DataError for files that cannot be read and for a dataset of which nothing can be used."""
        tallies, samples = Tallies(), list[int]()
        for dataset in datasets:
            samples.append(0)
            for rows in self._rows(dataset, tallies, augmenter):
                samples[-1] += len(rows.lengths)
                yield rows
        yield tallies.as_dict() | {SAMPLES: samples}

    def _rows(self, dataset: Dataset, tallies: Tallies, augmenter: Augmenter | None) -> Iterator[Rows]:
        named, own = self.cfg.max_reported_rows, Tallies()
        reader = Reader(dataset.shape, self.cfg.placeholders, augmenter=augmenter)
        most = mix.limit(dataset, self.cfg.max_samples)
        taken = mix.take(dataset, most, self.cfg.sample_strategy, self.seed, self.outlook.meter)
        kept = 0
        for prepared in self.workers.prepare(self.outlook.watch(taken), reader):
            own.count(dataset.name, prepared, named)
            kept += len(prepared.rows.lengths)
            self.outlook.tell(prepared.read)
            yield prepared.rows
        tallies.add(own, named)
        if not kept:
            why = "; ".join(f"{reason}: {tally}" for reason, tally in own.dropped.items())
            raise DataError(f"{dataset.name}: none of its {sum(own.read.values())} rows can be used ({why or 'empty'})")


def _holds(dataset: Dataset) -> Kind:
    shape = dataset.shape
    return "pair" if shape.ranking else "judged" if shape.columns.kto_tag else "conversation"
