"""In which order, and how often, the samples of several datasets are trained.  Knows their numbers; knows no sample."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tunesmith.config.data import DataConfig
from tunesmith.data.reading.sources import Dataset
from tunesmith.log import OptionError

Until = Literal["interleave_under", "interleave_over", "interleave_once"]


def probabilities(cfg: DataConfig, datasets: Sequence[Dataset]) -> list[float] | None:
    """The share of each dataset among the draws, together 1; None: they take turns.  Raises OptionError when what is
    written does not fit the datasets."""
    weights = [each.weight for each in datasets]
    weighted = [each.name for each in datasets if each.weight is not None]
    if cfg.mix_strategy == "concat" and (weighted or cfg.interleave_probs is not None):
        name = f"dataset: the weight of {weighted[0]}" if weighted else "interleave_probs"
        raise OptionError(f"{name} needs mix_strategy: interleave_under, interleave_over or interleave_once")
    if weighted and cfg.interleave_probs is not None:
        raise OptionError(f"interleave_probs: dataset gives the weight of {weighted[0]} already; leave one out")
    if weighted and len(weighted) < len(datasets):
        missing = next(each.name for each in datasets if each.weight is None)
        raise OptionError(f"dataset: {missing} has no weight and others have; write {missing}@0.5, or none at all")
    chosen = (
        cfg.interleave_probs if cfg.interleave_probs is not None else [each for each in weights if each is not None]
    )
    if cfg.interleave_probs is not None and len(chosen) != len(datasets):
        raise OptionError(f"interleave_probs: {len(chosen)} probabilities for {len(datasets)} datasets")
    if any(each <= 0 for each in chosen):
        subject = "dataset" if weighted else "interleave_probs"
        raise OptionError(f"{subject}: a dataset with probability 0 would never be trained; leave it out")
    return [each / sum(chosen) for each in chosen] if chosen else None


def interleave(sizes: Sequence[int], until: Until, shares: Sequence[float] | None, seed: int) -> np.ndarray:
    """Places of samples in datasets of `sizes` samples that lie one after another, in the order of training.

    Datasets take turns, or are drawn with probability `shares`.  `interleave_under`: until the first is used up;
    `interleave_over`: until the last is, others begin anew; `interleave_once`: until all are, each sample once."""
    counts = np.array(sizes, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    number, nth = _turns(counts, until) if shares is None else _draws(counts, until, shares, seed)
    places: np.ndarray = starts[number] + nth % counts[number]
    return places


def _turns(counts: np.ndarray, until: Until) -> tuple[np.ndarray, np.ndarray]:
    """Number of the dataset and of its sample, turn by turn."""
    rounds = int(counts.min() if until == "interleave_under" else counts.max())
    nth, number = np.divmod(np.arange(rounds * len(counts)), len(counts))
    if until == "interleave_once":
        there = nth < counts[number]
        return number[there], nth[there]
    return number, nth


def _draws(counts: np.ndarray, until: Until, shares: Sequence[float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, drawn.  A draw of a dataset that is used up is no draw, where each sample is trained once."""
    random = np.random.default_rng([seed, *b"interleave"])
    enough = np.any if until == "interleave_under" else np.all
    number = np.zeros(0, dtype=np.int64)
    while not enough(np.bincount(number, minlength=len(counts)) >= counts):
        number = np.concatenate([number, random.choice(len(counts), size=int(counts.sum()), p=shares)])
    nth = np.zeros(len(number), dtype=np.int64)
    used_up = []
    for dataset, count in enumerate(counts.tolist()):
        mine = np.flatnonzero(number == dataset)
        nth[mine] = np.arange(len(mine))
        used_up.append(int(mine[count - 1]) if len(mine) >= count else len(number))
    if until == "interleave_once":
        there = nth < counts[number]
        return number[there], nth[there]
    end = (min if until == "interleave_under" else max)(used_up) + 1
    return number[:end], nth[:end]
