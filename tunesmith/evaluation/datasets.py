"""Rows of datasets as a model finds them: each row's loss, and how near its answer comes.  Knows rows and an engine; knows no
second model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from tunesmith.config.schema import Config
from tunesmith.data import pipeline
from tunesmith.data.batching.batches import batch_of
from tunesmith.data.chat_format import chat_format
from tunesmith.data.sample import Samples
from tunesmith.evaluation.measured import Measured
from tunesmith.generate.batched import Prompt, answers
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.transformers import TransformersEngine
from tunesmith.models.predict import predictor
from tunesmith.train.judging import scores
from tunesmith.train.judging.predict import Question, questions, wanted
from tunesmith.train.objectives import NextToken
from tunesmith.train.telling.progress import Progress

CHARACTERS = 300
"""Of a text, what is kept to be shown."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Datasets' rows as tokens, by dataset, and what is asked of each."""

    samples: Mapping[str, Samples]
    asked: Sequence[Question]


def prepare(cfg: Config, engine: TransformersEngine, folders: Sequence[Any]) -> Rows:
    """The rows of `eval_dataset`, or of `dataset` where that is not written, each dataset by itself."""
    names = cfg.data.eval_dataset or cfg.data.dataset
    if not names:
        return Rows({}, [])
    data = cfg.data.model_copy(
        update={"dataset": [], "eval_dataset": names, "eval_on_each_dataset": True, "val_size": 0, "packing": False}
    )
    chats = cfg.train.stage != "pt"
    prepared = pipeline.prepare(
        data,
        stage="sft" if chats else "pt",
        seed=cfg.train.seed if cfg.train.data_seed is None else cfg.train.data_seed,
        tokenizer=engine.tokenizer,
        chat_format=chat_format(data, engine.tokenizer) if chats else None,
        search_folders=folders,
    )
    return Rows(prepared.evals, questions(prepared.evals) if wanted(cfg) else [])


def measure(cfg: Config, engine: TransformersEngine, rows: Rows, who: str) -> list[Measured]:
    """What the model is worth on each dataset: loss per trained token, and the scores that `metrics` names.  `who` is asked,
    in words."""
    found = [
        _losses(cfg, engine.model, name, samples, engine.pad_token(), who) for name, samples in rows.samples.items()
    ]
    return [*found, *_scored(cfg, engine, rows, who)]


@torch.no_grad()
def _losses(cfg: Config, model: PreTrainedModel, name: str, samples: Samples, pad: int, who: str) -> Measured:
    """Each row's mean loss; the rows weigh as many tokens as are trained in them."""
    policy, objective = predictor(model, no_padding=False).eval(), NextToken()  # its attention stays for answering
    losses, weights, rows = np.zeros(len(samples)), np.zeros(len(samples)), []
    with Progress(f"{who}: loss on {name}", len(samples), disable=cfg.train.disable_tqdm) as progress:
        for row in range(len(samples)):
            batch = batch_of(samples, [row], pad)
            weights[row] = objective.weight(batch)
            cost = objective(policy, batch.map(lambda tensor: tensor.to(model.device)))
            losses[row] = float(cost.total) / max(weights[row], 1e-9)
            rows.append({"row": samples.where(row), "said": f"loss {losses[row]:.4f}"})
            progress.advance(row + 1)
    return Measured(name, "loss", losses, weights, rows, less_is_better=True)


def _scored(cfg: Config, engine: TransformersEngine, rows: Rows, who: str) -> Iterator[Measured]:
    if not rows.asked:
        return
    sampling = Sampling.from_options(cfg.generate, cfg.train.seed)
    prompts = [Prompt(number, question.prompt) for number, question in enumerate(rows.asked)]
    said: dict[int, str] = {}
    with Progress(f"{who}: answering", len(prompts), disable=cfg.train.disable_tqdm) as progress:
        for answer in answers(engine, prompts, sampling, batch_size=cfg.train.per_device_eval_batch_size):
            said[answer.number] = answer.text
            progress.advance(len(said))
    for name, samples in rows.samples.items():
        mine = [number for number, question in enumerate(rows.asked) if question.name == name]
        shown = [
            {
                "row": samples.where(place),
                "question": _text(engine, rows.asked[number].prompt)[-CHARACTERS:],
                "wanted": _text(engine, rows.asked[number].label),
                "said": said[number],
            }
            for place, number in enumerate(mine)
        ]
        each = [scores.mean_scores([(row["said"], row["wanted"])], wanted(cfg)) for row in shown]
        for metric in each[0] if each else ():
            yield Measured(name, metric, np.array([one[metric] for one in each]), np.ones(len(each)), shown)


def _text(engine: TransformersEngine, ids: Sequence[int]) -> str:
    text: str = engine.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
