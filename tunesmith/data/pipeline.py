"""Datasets -> samples, told as a story: find, read, convert, encode, split, report.  Knows the order of the steps; knows
no step's inside."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import log
from tunesmith.config.data import DataConfig
from tunesmith.data.batching.batches import Feed, PreparedFeed
from tunesmith.data.batching.division import Division
from tunesmith.data.batching.pack import Filled, Packed, filled
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.encoding.proof import prove
from tunesmith.data.gather import SAMPLES, Gatherer
from tunesmith.data.keeping import store
from tunesmith.data.keeping.arrays import VARIED, ArraySamples
from tunesmith.data.keeping.key import key
from tunesmith.data.keeping.prepare import Kind, Workers
from tunesmith.data.reading import mix
from tunesmith.data.reading.augment import Augmenter
from tunesmith.data.reading.interleave import Until, interleave, probabilities
from tunesmith.data.reading.raw_rows import RawRows
from tunesmith.data.reading.sources import Dataset, find_datasets
from tunesmith.data.sample import Samples
from tunesmith.data.streaming.stream import Stream
from tunesmith.data.streaming.streamed_feed import StreamedFeed
from tunesmith.data.telling.outlook import OnProgress, Outlook
from tunesmith.data.telling.report import Report, Tallies
from tunesmith.log import DataError, OptionError
from tunesmith.templates.conversation import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


KINDS: dict[str, Kind] = {
    "pt": "text", "sft": "conversation", "rm": "pair", "dpo": "pair", "kto": "judged",
}  # fmt: skip
"""What each stage makes of a row."""


@dataclass(slots=True)
class Prepared:
    """Everything a run needs of its data."""

    train: Samples
    """All that is trained; of a stream, what is known before."""
    evals: dict[str, Samples]
    """By name: `eval`, or with `eval_on_each_dataset` each dataset's."""
    report: Report
    fingerprint: str
    """Hash of the samples and what decides their order: equal means that a run can go on where it stopped."""
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The labels that the answers of an evaluation set are, where its datasets declare them; by the set's name."""
    parts: dict[str, Any] = field(default_factory=dict)
    """What the trained rows were made of, each with a hash; empty where that is not known beforehand."""
    stream: Stream | None = None
    """What is trained, when it is read only then."""

    @property
    def longest(self) -> int:
        """Tokens of the longest text that a model reads in one, of a stream's first rows."""
        texts = (
            rows.samples if isinstance(rows, Packed) and rows.isolated else rows
            for rows in (self.train, *self.evals.values())
        )
        return max((int(each.lengths.max()) for each in texts if len(each)), default=0)

    def feed(self, division: Division) -> Feed:
        """What gives the run its windows."""
        return PreparedFeed(self.train, division) if self.stream is None else StreamedFeed(self.stream, division)


def prepare(
    cfg: DataConfig,
    *,
    stage: str,
    seed: int,
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: ChatFormat | None,
    search_folders: Sequence[Path] = (),
    on_progress: OnProgress = lambda done, total: None,
    keep: bool = True,
) -> Prepared:
    """Read, encode and split the data of a run.  `seed` decides the split and random choices, `chat_format` is None
    for the stage `pt`; `keep`: rows that are prepared are kept on disk, as options say.

    Raises OptionError for names and options, DataError for files that cannot be read and when nothing would be
    trained."""
    _check(cfg, stage)
    kind = KINDS[stage]
    trained = find_datasets(cfg.dataset, cfg.dataset_dir, search_folders, streaming=cfg.streaming)
    evaluated = find_datasets(cfg.eval_dataset, cfg.dataset_dir, search_folders, option="eval_dataset")
    if weighted := [each.name for each in evaluated if each.weight is not None]:
        raise OptionError(f"eval_dataset: {weighted[0]}: evaluation reads every row once, so a weight says nothing")
    shares = probabilities(cfg, trained)
    encoder = Encoder(tokenizer, chat_format, cfg)
    prove(tokenizer, encoder, [*trained, *evaluated], kind)
    beforehand = [] if cfg.streaming else trained
    outlook = Outlook([*beforehand, *evaluated], cfg.max_samples, on_progress)
    tallies, sizes, parts, processes = Tallies(), dict[str, list[int]](), dict[str, store.Key | None](), _workers(cfg)
    with Workers(processes, encoder, kind=kind, strict=cfg.strict, chunk_rows=cfg.preprocessing_batch_size) as workers:
        gatherer = Gatherer(cfg, kind, seed, encoder, workers, outlook)

        def samples(name: str, datasets: Sequence[Dataset], augmenter: Augmenter | None = None) -> ArraySamples:
            gatherer.check(datasets)
            shaping = key(
                cfg, datasets, kind=kind, seed=seed, tokenizer=tokenizer, chat_format=chat_format, augmenter=augmenter
            )
            parts[name] = shaping
            stored = _stored(cfg, name, datasets, shaping, lambda: gatherer.prepare(datasets, augmenter), keep)
            tallies.add(Tallies.of(stored.report), cfg.max_reported_rows)
            sizes[name] = stored.report[SAMPLES]
            return ArraySamples(stored.rows)

        train = samples("train", beforehand, Augmenter.of(cfg, seed))
        evals = {name: samples(name, group) for name, group in _groups(evaluated, cfg.eval_on_each_dataset).items()}
    if cfg.streaming and trained:
        gatherer.check(trained)
        stream = Stream(cfg, kind, _raw_rows(cfg, trained, shares, seed), encoder, processes)
        return _streamed(cfg, stream, evals, tallies, _labels(cfg, trained, evaluated))
    if cfg.val_size:
        own = np.flatnonzero(train.marks != VARIED)
        held_out = own[mix.split(train.keys[own], cfg.val_size, seed)[1]]
        trained_on = np.flatnonzero(~np.isin(train.keys, train.keys[held_out]))
        train, evals, sizes["train"] = _divided(train, trained, sizes["train"], trained_on, held_out, cfg)
    _warn_of_placeholders(tallies)
    kept, mixed = train.source_rows(), ""
    if cfg.mix_strategy != "concat" and trained:
        train, mixed = _interleaved(train, trained, sizes["train"], cfg.mix_strategy, shares, kind, seed)
    prepared = _finished(cfg, kind, seed, train, evals, tallies, kept, mixed)
    prepared.labels, prepared.parts = _labels(cfg, trained, evaluated), dict(parts["train"] or {})
    return prepared


def _divided(
    rows: ArraySamples,
    datasets: Sequence[Dataset],
    sizes: Sequence[int],
    trained_on: np.ndarray,
    held_out: np.ndarray,
    cfg: DataConfig,
) -> tuple[ArraySamples, dict[str, ArraySamples], list[int]]:
    """The samples to train on, those to evaluate on by their sets' names, and how many of the first are each dataset's."""
    starts = np.cumsum([0, *sizes])
    evals = {"eval": rows.choose(held_out)}
    if cfg.eval_on_each_dataset:
        parts = np.split(held_out, np.searchsorted(held_out, starts[1:-1]))
        evals = {each.name: rows.choose(part) for each, part in zip(datasets, parts, strict=True) if len(part)}
    return rows.choose(trained_on), evals, np.diff(np.searchsorted(trained_on, starts)).tolist()


def _labels(cfg: DataConfig, trained: Sequence[Dataset], evaluated: Sequence[Dataset]) -> dict[str, tuple[str, ...]]:
    """The labels of each evaluation set all of whose datasets declare some."""
    groups = _groups(trained if cfg.val_size else evaluated, cfg.eval_on_each_dataset)
    return {
        name: tuple(dict.fromkeys(label for each in datasets for label in each.labels))
        for name, datasets in groups.items()
        if all(each.labels for each in datasets)
    }


def _interleaved(
    train: ArraySamples,
    datasets: Sequence[Dataset],
    sizes: Sequence[int],
    until: Until,
    shares: Sequence[float] | None,
    kind: Kind,
    seed: int,
) -> tuple[ArraySamples, str]:
    """The samples of an epoch, and how many there are of each dataset, in words.  A pair's two stay together."""
    if 0 in sizes:
        name = datasets[sizes.index(0)].name
        raise DataError(f"{name}: val_size takes all of its rows, so there is nothing to interleave")
    unit = 2 if kind == "pair" else 1
    places = interleave([size // unit for size in sizes], until, shares, seed)
    places = (places[:, None] * unit + np.arange(unit)).reshape(-1)
    used = np.histogram(places, bins=np.cumsum([0, *sizes]) - 0.5)[0].tolist()
    told = [f"{each.name} {n:,} of {size:,}" for each, n, size in zip(datasets, used, sizes, strict=True)]
    return train.choose(places), f"{until}, samples an epoch: {', '.join(told)}"


def _stored(
    cfg: DataConfig,
    name: str,
    datasets: Sequence[Dataset],
    shaping: store.Key | None,
    prepare: store.Prepare,
    keep: bool,
) -> store.Stored:
    """The prepared rows of some datasets, from wherever the options say."""
    if not datasets:
        return store.in_memory(prepare)
    if cfg.tokenized_path:
        if shaping is None:
            raise OptionError("tokenized_path: works only with data in local files, whose bytes can be compared")
        if not keep:
            return store.named_or_in_memory(Path(cfg.tokenized_path) / name, shaping, prepare, anew=cfg.overwrite_cache)
        return store.named(Path(cfg.tokenized_path) / name, shaping, prepare, anew=cfg.overwrite_cache)
    if cfg.disable_cache or shaping is None:
        return store.in_memory(prepare)
    if not keep:
        return store.cached_or_in_memory(" ".join(each.name for each in datasets), shaping, prepare)
    return store.cached(" ".join(each.name for each in datasets), shaping, prepare, anew=cfg.overwrite_cache)


def _finished(
    cfg: DataConfig,
    kind: Kind,
    seed: int,
    train: ArraySamples,
    evals: dict[str, ArraySamples],
    tallies: Tallies,
    kept: int,
    mixed: str,
) -> Prepared:
    """What the run gets, with its report.  Raises DataError when nothing would be trained."""
    samples = filled(train, kind, cfg.cutoff_len, cfg.packing, seed)
    report = _report(cfg, samples, evals, tallies, kept=kept, mixed=mixed)
    if cfg.dataset and not report.trained_tokens:
        raise DataError("no token would be trained: " + "; ".join(report.lines()))
    order = f"{samples.fingerprint()} {seed} {cfg.disable_shuffling} {cfg.batching}"
    fingerprint = hashlib.sha256(order.encode()).hexdigest()
    return Prepared(samples, _to_evaluate(cfg, kind, evals), report, fingerprint)


def _raw_rows(cfg: DataConfig, datasets: Sequence[Dataset], shares: Sequence[float] | None, seed: int) -> RawRows:
    """Which rows a stream reads, and in which order."""
    until = None if cfg.mix_strategy == "concat" else cfg.mix_strategy
    return RawRows(datasets, cfg.max_samples, until, shares, 0 if cfg.disable_shuffling else cfg.buffer_size, seed)


def _streamed(
    cfg: DataConfig,
    stream: Stream,
    evals: dict[str, ArraySamples],
    tallies: Tallies,
    labels: dict[str, tuple[str, ...]],
) -> Prepared:
    """What a run gets that reads its rows while training: the stream, and what is known of it by now.  Raises DataError
    when nothing of its first rows would be trained."""
    if cfg.val_size:
        evals = {"eval": stream.hold_out(int(cfg.val_size))}
    first = stream.first()
    tallies.add(first.tallies, cfg.max_reported_rows)
    _warn_of_placeholders(tallies)
    report = _report(cfg, first.samples, evals, tallies, kept=first.kept, mixed="")
    report.streamed = True
    report.held_out = max(first.held_out - (report.evaluated if cfg.val_size else 0), 0)
    others = _to_evaluate(cfg, stream.kind, evals)
    return Prepared(first.samples, others, report, stream.fingerprint(first), labels, stream=stream)


def _to_evaluate(cfg: DataConfig, kind: Kind, evals: dict[str, ArraySamples]) -> dict[str, Samples]:
    """Evaluation sets as they are evaluated: plain text in blocks, other samples as they are."""
    return {name: filled(each, kind, cfg.cutoff_len, False, 0) for name, each in evals.items()}


def _report(
    cfg: DataConfig, samples: Filled, evals: dict[str, ArraySamples], tallies: Tallies, *, kept: int, mixed: str
) -> Report:
    return Report(
        tallies,
        cfg.cutoff_len,
        kept=kept,
        evaluated=sum(each.source_rows() for each in evals.values()),
        samples=len(samples),
        tokens=int(samples.lengths.sum(dtype="int64")),
        trained_tokens=samples.trained_tokens(),
        longest=int(samples.lengths.max(initial=0)),
        mixed=mixed,
        fill_rate=samples.fill_rate if isinstance(samples, Packed) else None,
    )


def _warn_of_placeholders(tallies: Tallies) -> None:
    """Tell once per dataset which placeholders stay in its texts."""
    for name, keys in tallies.unfilled.items():
        shown = ", ".join(f"{{{{{each}}}}}" for each in keys)
        given = ", ".join(f"{each}: ..." for each in keys)
        log.warn("placeholders", f"{name} has {shown}, which stays as it is; set placeholders: {{{given}}}")


def _groups(datasets: Sequence[Dataset], each: bool) -> dict[str, Sequence[Dataset]]:
    """Evaluation sets by name."""
    if each:
        return {dataset.name: [dataset] for dataset in datasets}
    return {"eval": datasets} if datasets else {}


def _check(cfg: DataConfig, stage: str) -> None:
    problems = []
    if stage not in KINDS:
        problems.append(f"stage: {stage} is not built yet")
    elif cfg.packing and KINDS[stage] in ("pair", "judged"):
        problems.append(f"packing: the stage {stage} compares whole answers and cannot pack them")
    if not (cfg.dataset or cfg.eval_dataset):
        problems.append("dataset: names no data to train on")
    if cfg.val_size and cfg.eval_dataset:
        problems.append("val_size: rows are either split off or come from eval_dataset, not both")
    if problems:
        raise OptionError(*problems)


def _workers(cfg: DataConfig) -> int:
    """Processes that prepare rows: at most one for each core."""
    wanted, cores = cfg.preprocessing_num_workers, os.cpu_count() or 1
    if wanted is None:
        return 1
    if wanted == "auto":
        return cores
    if int(wanted) > cores:
        log.note("preprocessing_num_workers", f"{cores} instead of {wanted}, one for each core")
    return min(int(wanted), cores)
