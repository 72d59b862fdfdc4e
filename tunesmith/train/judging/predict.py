"""The story of `do_predict`: every evaluation row is answered, kept as soon as it is, and scored.  Knows rows and their
answers; the engine knows the model.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tunesmith import shortage
from tunesmith.config.schema import Config
from tunesmith.data.sample import IGNORED, Samples
from tunesmith.generate.batched import Prompt, answers
from tunesmith.generate.load import load_engine
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.transformers import TransformersEngine
from tunesmith.log import OutOfMemory, note, say, warn
from tunesmith.models.adapter_files import CONFIG as ADAPTER
from tunesmith.models.where import find, find_adapters
from tunesmith.train.inputs import Inputs
from tunesmith.train.judging import scores
from tunesmith.train.judging.predictions import Kept, Row
from tunesmith.train.runtime import Runtime
from tunesmith.train.stop import Stopped, as_part, of_sum
from tunesmith.train.telling.events import speed
from tunesmith.train.telling.progress import Progress

SCORES = ("bleu", "rouge")
"""What `predict_results.json` holds, and what `predict_with_generate` adds to `eval_results.json`."""

PERCENT = ("bleu-4", *scores.ROUGES.values())
"""Scores that are told in percent, as readers of LLaMA-Factory's files know them."""

WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number -> the whole numbers that it is read as for a fingerprint."""

Results = dict[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What goes into `predict_results.json` and what is added to `eval_results.json`; both empty but on rank 0."""

    predicted: Results
    evaluated: Results


def wanted(cfg: Config) -> list[str]:
    """What of `metrics` needs answers."""
    asked = [name for name in cfg.train.metrics if name in ("exact_match", "f1", "rouge", "bleu")]
    return list(dict.fromkeys([*asked, *(SCORES if cfg.train.predict_with_generate else ())]))


def is_asked(cfg: Config) -> bool:
    """Whether evaluation rows are to be answered by a model that is not trained any more."""
    return cfg.train.do_predict or (not cfg.train.do_train and cfg.train.do_eval and bool(wanted(cfg)))


@dataclass(frozen=True, slots=True)
class Question:
    """A row to answer: what is asked and what is wanted, as tokens.  `name`: its evaluation set's."""

    name: str
    prompt: list[int]
    label: list[int]


def questions(evals: Mapping[str, Samples]) -> list[Question]:
    """Every evaluation row, set by set, with its last answer as what is wanted and all before it as what is asked."""
    return [_question(name, samples, row) for name, samples in evals.items() for row in range(len(samples))]


def _question(name: str, samples: Samples, row: int) -> Question:
    sample = samples[row]
    trained = np.flatnonzero(sample.labels != IGNORED)
    breaks = np.flatnonzero(np.diff(trained) > 1)
    first, last = int(trained[breaks[-1] + 1 if len(breaks) else 0]), int(trained[-1])
    return Question(name, sample.input_ids[:first].tolist(), sample.input_ids[first : last + 1].tolist())


def tuned(cfg: Config, folder: Path) -> Config:
    """The options with the model that a run has written into `folder`.  An adapter holds what was merged beneath it."""
    if (folder / ADAPTER).is_file():
        model = cfg.model.model_copy(update={"adapter_name_or_path": [str(folder)]})
    else:
        model = cfg.model.model_copy(update={"model_name_or_path": str(folder), "adapter_name_or_path": []})
    return cfg.model_copy(update={"model": model})


def predict(cfg: Config, inputs: Inputs, runtime: Runtime, folder: Path) -> Outcome | int:
    """Answer every evaluation row with the model that `cfg` names, and write `generated_predictions.jsonl` into `folder`.

    Returns the signal that came, if one did: what was answered until then is kept, and the same call goes on there.
    """
    runtime.wait()  # until the model is written, where it is this run's
    asked = questions(inputs.prepared.evals)
    engine, facts = load_engine(
        find(cfg.model), find_adapters(cfg.model), cfg.model, cfg.data, device=runtime.device, merged=True
    )
    note("do_predict", facts)
    sampling = Sampling.from_options(cfg.generate, cfg.train.seed)
    kept = Kept(folder, _fingerprint(engine, asked, sampling), runtime.rank)
    runtime.wait()  # from here on each process writes, so all must have read
    kept.open()
    earlier = len(kept.answers)
    if earlier:
        note("do_predict", f"{earlier:,} of {len(asked):,} rows were answered before; going on behind them")
    began = time.perf_counter()
    signum, tokens = None, 0
    try:
        tokens = _answer(cfg, engine, asked, sampling, kept, runtime)
    except Stopped as stopped:
        signum = stopped.signum
        warn(
            "stopped",
            f"by {stopped}; {len(kept.answers):,} of {len(asked):,} rows are answered and kept in {folder}; the same "
            "command goes on there",
        )
    if signum := of_sum(runtime.sums(as_part(signum))[0]):  # which waits for all
        return signum
    if not runtime.is_main:
        return Outcome({}, {})
    kept.gather()
    rows = list(rows_of(inputs, asked, kept.answers, cfg.generate.skip_special_tokens))
    written = kept.publish(rows)
    say(f"{len(rows):,} answers are in {written}")
    note("do_predict", f"{tokens:,} tokens made in {time.perf_counter() - began:.1f} s by this process")
    labels = inputs.prepared.labels
    predicted = scored("predict", scorable(SCORES, "predict"), asked, rows, labels)
    names = [] if cfg.train.do_train else scorable(wanted(cfg), "eval")  # a run's evaluations have told them
    evaluated = scored("eval", names, asked, rows, labels)
    answered = len(rows) - earlier
    steps = -(-answered // (cfg.train.per_device_eval_batch_size * runtime.world_size))
    seconds = time.perf_counter() - began  # with the scores, as LLaMA-Factory counts
    return Outcome(predicted | speed("predict", seconds=seconds, samples=answered, steps=steps), evaluated)


def _answer(
    cfg: Config,
    engine: TransformersEngine,
    asked: list[Question],
    sampling: Sampling,
    kept: Kept,
    runtime: Runtime,
) -> int:
    """Answer this process's share of the rows that nobody has answered; returns how many tokens were made."""
    try:
        return _answer_missing(cfg, engine, asked, sampling, kept, runtime)
    except Exception as problem:
        found = shortage.found(problem)
        if found is None:
            raise
        raise OutOfMemory(
            f"out of memory while answering: a smaller per_device_eval_batch_size or max_new_tokens takes less; "
            f"{len(kept.answers):,} of {len(asked):,} rows are answered, and the same command goes on there ({found})"
        ) from problem


def _answer_missing(
    cfg: Config,
    engine: TransformersEngine,
    asked: list[Question],
    sampling: Sampling,
    kept: Kept,
    runtime: Runtime,
) -> int:
    missing = sorted(set(range(len(asked))) - set(kept.answers), key=lambda row: (-len(asked[row].prompt), row))
    mine = [Prompt(row, asked[row].prompt) for row in missing[runtime.rank :: runtime.world_size]]
    tokens = 0
    with Progress("answering", len(mine), disable=cfg.train.disable_tqdm) as progress:
        made = answers(engine, mine, sampling, batch_size=cfg.train.per_device_eval_batch_size)
        for done, answer in enumerate(made, start=1):
            kept.add(answer.number, answer.text)
            tokens += answer.tokens
            progress.advance(done, tokens=tokens)
    return tokens


def rows_of(inputs: Inputs, asked: list[Question], said: Mapping[int, str], skip: bool) -> Iterator[Row]:
    """What was asked, what was said by rows' numbers, and what was wanted, as texts."""
    decode = inputs.tokenizer.decode
    for number, question in enumerate(asked):
        prompt = decode(question.prompt, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        label = decode(question.label, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        yield Row(prompt, said[number], label)


def scorable(names: Sequence[str], told: str) -> list[str]:
    """`names` without BLEU and ROUGE, with a warning, where their packages are missing."""
    if not (scores.missing() and {*names} & {*SCORES}):
        return list(names)
    warn("do_predict", f"no {told}_bleu-4 and no {told}_rouge: they need packages: {scores.HOW}")
    return [name for name in names if name not in SCORES]


def scored(
    prefix: str, names: Sequence[str], asked: list[Question], rows: list[Row], labels: Mapping[str, Sequence[str]]
) -> Results:
    """The mean scores of each evaluation set; `labels`: of the sets whose answers are labels."""
    sets = list(dict.fromkeys(question.name for question in asked))
    results = {}
    for each in sets:
        pairs = [(row.predict, row.label) for row, one in zip(rows, asked, strict=True) if one.name == each]
        before = prefix if len(sets) == 1 else f"{prefix}_{each}"
        for score, value in scores.mean_scores(pairs, names, labels.get(each, ())).items():
            results[f"{before}_{score}"] = round(100 * value, 4) if score in PERCENT else value
    return results


def _fingerprint(engine: TransformersEngine, asked: list[Question], sampling: Sampling) -> str:
    """A hash of all that decides the answers: prompts, how they are answered, weights."""
    digest = hashlib.sha256()
    told = (sampling, sorted(engine.stops.tokens), engine.stops.texts, [(one.name, one.prompt) for one in asked])
    digest.update(repr(told).encode())
    for name, weight in engine.model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} {_sum(weight)}".encode())
    return digest.hexdigest()


@torch.no_grad()
def _sum(weight: nn.Parameter) -> int:
    """The sum of a weight's bits read as whole numbers, in any order the same."""
    return int(weight.detach().contiguous().view(WHOLE[weight.element_size()]).sum(dtype=torch.int64))
