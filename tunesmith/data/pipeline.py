"""Datasets -> samples, told as a story: find, read, convert, encode, split, report.  Knows the order of the steps; knows
no step's inside."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import log
from tunesmith.config.data import DataConfig
from tunesmith.data import mix
from tunesmith.data.encode import Encoder
from tunesmith.data.formats import Reader, Unusable
from tunesmith.data.outlook import OnProgress, Outlook
from tunesmith.data.pack import Blocks
from tunesmith.data.prepare import Kind, Workers
from tunesmith.data.report import Report
from tunesmith.data.sample import Samples
from tunesmith.data.sources import Dataset, find_datasets
from tunesmith.data.store import ArraySamples, Gatherer
from tunesmith.log import DataError, OptionError
from tunesmith.templates.conversation import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


KINDS: dict[str, Kind] = {
    "pt": "text", "sft": "conversation", "rm": "pair", "dpo": "pair", "kto": "judged",
}  # fmt: skip
"""What each stage makes of a row."""

_CALLED: dict[Kind, str] = {
    "text": "texts",
    "conversation": "conversations",
    "pair": "preference pairs (ranking: true)",
    "judged": "answers with a label (kto_tag)",
}


@dataclass(slots=True)
class Prepared:
    """Everything a run needs of its data."""

    train: Samples
    evals: dict[str, Samples]
    """By name: `eval`, or with `eval_on_each_dataset` each dataset's."""
    report: Report
    fingerprint: str
    """Hash of the samples and what decides their order: equal means that a run can go on where it stopped."""


def prepare(
    cfg: DataConfig,
    *,
    stage: str,
    seed: int,
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: ChatFormat | None,
    search_folders: Sequence[Path] = (),
    on_progress: OnProgress = lambda done, total: None,
) -> Prepared:
    """Read, encode and split the data of a run.  `seed` decides the split and random choices, `chat_format` is None
    for the stage `pt`.

    Raises OptionError for names and options, DataError for files that cannot be read and when nothing would be
    trained."""
    _check(cfg, stage)
    trained = find_datasets(cfg.dataset, cfg.dataset_dir, search_folders)
    evaluated = find_datasets(cfg.eval_dataset, cfg.dataset_dir, search_folders)
    outlook = Outlook([*trained, *evaluated], cfg.max_samples, on_progress)
    job = _Job(cfg, stage, seed, Encoder(tokenizer, chat_format, cfg), outlook)
    with job.workers:
        train = job.samples(trained)
        evals = {name: job.samples(group) for name, group in _groups(evaluated, cfg.eval_on_each_dataset).items()}
    if cfg.val_size:
        trained_on, held_out = mix.split(train.keys, cfg.val_size, seed)
        train, evals = train.choose(trained_on), {"eval": train.choose(held_out)}
    job.finish()
    samples = job.final(train)
    _describe(job.report, train, samples, evals)
    order = f"{samples.fingerprint()} {seed} {cfg.disable_shuffling}"
    return Prepared(
        samples,
        {name: job.final(each) for name, each in evals.items()},
        job.report,
        hashlib.sha256(order.encode()).hexdigest(),
    )


class _Job:
    """One run's preparation: what stays the same from dataset to dataset, and what is counted over all of them."""

    def __init__(self, cfg: DataConfig, stage: str, seed: int, encoder: Encoder, outlook: Outlook):
        self.cfg, self.seed, self.encoder, self.outlook = cfg, seed, encoder, outlook
        self.stage, self.kind = stage, KINDS[stage]
        self.workers = Workers(
            _workers(cfg.preprocessing_num_workers),
            encoder,
            kind=self.kind,
            strict=cfg.strict,
            chunk_rows=cfg.preprocessing_batch_size,
        )
        self.report = Report(cfg.max_reported_rows, cutoff_len=cfg.cutoff_len)
        self.unfilled: dict[str, set[str]] = {}
        self.checked = False

    def samples(self, datasets: Sequence[Dataset]) -> ArraySamples:
        """All rows of some datasets, one after another."""
        gatherer = Gatherer()
        for dataset in datasets:
            self._add(dataset, gatherer)
        return gatherer.samples()

    def final(self, samples: ArraySamples) -> ArraySamples | Blocks:
        """What is batched: the rows, or plain text in blocks."""
        return Blocks(samples, self.cfg.cutoff_len) if self.kind == "text" else samples

    def finish(self) -> None:
        """Tell what was seen in several rows once."""
        for name, keys in self.unfilled.items():
            shown = ", ".join(f"{{{{{key}}}}}" for key in sorted(keys))
            given = ", ".join(f"{key}: ..." for key in sorted(keys))
            log.warn("placeholders", f"{name} has {shown}, which stays as it is; set placeholders: {{{given}}}")

    def _add(self, dataset: Dataset, gatherer: Gatherer) -> None:
        self._check_shape(dataset)
        reader = Reader(dataset.shape, self.cfg.placeholders)
        if self.kind != "text" and not self.checked:
            self.checked = self._check_format(dataset, reader)
        most = mix.limit(dataset, self.cfg.max_samples)
        rows = mix.take(dataset, most, self.cfg.sample_strategy, self.seed, self.outlook.meter)
        done = kept = 0
        for prepared in self.workers.prepare(self.outlook.watch(rows), reader):
            gatherer.add(prepared.chunk)
            done, kept = done + prepared.read, kept + len(prepared.chunk.lengths)
            for reason, where in prepared.dropped:
                self.report.drop(reason, where)
            for where, samples in prepared.split:
                self.report.divide(where, samples)
            for where, tokens in prepared.cut:
                self.report.shorten(where, tokens)
            if prepared.unfilled:
                self.unfilled.setdefault(dataset.name, set()).update(prepared.unfilled)
            self.outlook.tell(prepared.read)
        self.report.read[dataset.name] = self.report.read.get(dataset.name, 0) + done
        if not kept:
            why = "; ".join(f"{reason}: {tally}" for reason, tally in self.report.dropped.items())
            raise DataError(f"{dataset.name}: none of its {done} rows can be used" + (f" ({why})" if why else ""))

    def _check_shape(self, dataset: Dataset) -> None:
        """Refuse data that the stage cannot use."""
        shape = dataset.shape
        holds: Kind = "pair" if shape.ranking else "judged" if shape.columns.kto_tag else "conversation"
        if self.kind != "text" and holds != self.kind:
            raise OptionError(
                f"dataset: {dataset.name} holds {_CALLED[holds]}; the stage {self.stage} needs {_CALLED[self.kind]}"
            )

    def _check_format(self, dataset: Dataset, reader: Reader) -> bool:
        """Check the chat format against the vocabulary on the first usable row; False when there is none."""
        for row in islice(dataset.source.read(), 100):
            try:
                conversation = reader.conversation(row)
            except Unusable:
                continue
            try:
                self.encoder.check_format(conversation)
            except DataError:
                continue
            return True
        return False


def _groups(datasets: Sequence[Dataset], each: bool) -> dict[str, Sequence[Dataset]]:
    """Evaluation sets by name."""
    if each:
        return {dataset.name: [dataset] for dataset in datasets}
    return {"eval": datasets} if datasets else {}


def _check(cfg: DataConfig, stage: str) -> None:
    problems = []
    if stage not in KINDS:
        problems.append(f"stage: {stage} is not built yet")
    if not cfg.dataset:
        problems.append("dataset: names no data to train on")
    if cfg.val_size and cfg.eval_dataset:
        problems.append("val_size: rows are either split off or come from eval_dataset, not both")
    if problems:
        raise OptionError(*problems)


def _workers(wanted: int | str | None) -> int:
    cores = os.cpu_count() or 1
    if wanted is None:
        return 1
    if wanted == "auto":
        return cores
    if int(wanted) > cores:
        log.note("preprocessing_num_workers", f"{cores} instead of {wanted}, one for each core")
    return min(int(wanted), cores)


def _describe(
    report: Report, train: ArraySamples, samples: ArraySamples | Blocks, evals: dict[str, ArraySamples]
) -> None:
    """Fill in the report's sums.  Raises DataError when nothing would be trained."""
    report.kept, report.evaluated = train.source_rows(), sum(each.source_rows() for each in evals.values())
    report.samples, report.tokens = len(samples), int(samples.lengths.sum(dtype="int64"))
    report.longest = int(samples.lengths.max(initial=0))
    report.trained_tokens = samples.trained_tokens()
    if not report.trained_tokens:
        raise DataError("no token would be trained: " + "; ".join(report.lines()))
