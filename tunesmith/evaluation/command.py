"""`tunesmith eval`: questions and rows of data, asked of a model, and of the one it was tuned from.  Tells the order; knows no
number."""

import importlib.util
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import log
from tunesmith.config.load import Loaded, load
from tunesmith.config.schema import Config
from tunesmith.data.reading.sources import find_datasets
from tunesmith.evaluation.tasks import Task, find_place, read_task
from tunesmith.files import open_beside
from tunesmith.generate.chat import take_adapter
from tunesmith.generate.source import run_options, settle
from tunesmith.jobs.importing import quickly
from tunesmith.log import MissingExtra, OptionError
from tunesmith.models.complete import check
from tunesmith.models.where import Source, find, find_adapters
from tunesmith.train.judging import scores

if TYPE_CHECKING:
    from tunesmith.evaluation.datasets import Rows
    from tunesmith.evaluation.measured import Measured
    from tunesmith.generate.transformers import TransformersEngine

RESULTS = "results.json"

PLAIN = ("fewshot", "empty")
"""Templates that ask for plain text, as no template does."""


@dataclass(frozen=True)
class Asked:
    """What is asked, found and read before any weight."""

    cfg: Config
    tasks: Sequence[Task]
    named: Sequence[str]
    folders: Sequence[Path]
    plain: bool
    base: Source | None
    """A model to load for the comparison; None: the adapter is switched off, or nothing is compared."""


def eval_command(arguments: list[str]) -> int:
    """Ask a model and print what it is worth: `tunesmith eval MODEL --task FILE`; returns the exit code."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # of libraries; progress is shown by us
    place, arguments = take_adapter(arguments)
    loaded = load(arguments, command="eval")
    cfg = settle(loaded.config, loaded.given, place)
    asked = _asked(loaded, cfg)
    source, adapters = find(cfg.model), find_adapters(cfg.model)
    check(source)

    from tunesmith.evaluation import report

    with quickly():  # torch, only once all that is known to be there
        from tunesmith.generate.load import load_engine

    engine, facts = load_engine(source, adapters, cfg.model, cfg.data)
    log.note("eval", facts)
    rows = _rows(asked, engine)
    tuned = _measured(asked, engine, rows, "tuned" if cfg.evaluate.compare_base else source.name)
    base: list[Measured] | None = None
    if cfg.evaluate.compare_base:
        with _as_base(asked, engine):
            base = _measured(asked, engine, rows, "base")
    for line in report.lines(tuned, base, cfg.train.seed):
        log.say(line)
    if cfg.evaluate.save_dir:
        told = report.as_dict(tuned, base, cfg.train.seed)
        names = {"model": facts, "base": asked.base.name if asked.base else source.name if base else None}
        written = Path(cfg.evaluate.save_dir).expanduser() / RESULTS
        with open_beside(written) as file:
            file.write(json.dumps(names | told, indent=1, ensure_ascii=False).encode())
        log.say(f"results are in {written}")
    return 0


def _asked(loaded: Loaded, cfg: Config) -> Asked:
    """Everything that can be wrong without a weight being read, in the order of what it costs to look."""
    if {"bleu", "rouge"} & {*cfg.train.metrics}:
        scores.require("metrics")
    places = [(name, find_place(name, cfg.evaluate.task_dir)) for name in cfg.evaluate.task]
    tasks = [read_task(path) for _, path in places if path is not None]
    if twice := [task.name for place, task in enumerate(tasks) if task.name in [one.name for one in tasks[:place]]]:
        raise OptionError(f"task: two tasks are called {twice[0]}; rename a file")
    for task in tasks:
        for subject in task.subjects():
            task.shots(subject, cfg.evaluate.n_shot)
    with log.muted():
        names = cfg.data.eval_dataset or cfg.data.dataset
        folders = [file.parent for file in loaded.files]
        find_datasets(names, cfg.data.dataset_dir, folders, option="eval_dataset")
    base = _base(cfg) if cfg.evaluate.compare_base else None
    if places:
        _require_harness()
    named = [name for name, path in places if path is None]
    if named:
        from tunesmith.evaluation.hub import be_offline_unless_reached

        offline = be_offline_unless_reached(named)
        from tunesmith.evaluation.harness import fetch, find_tasks

        named = find_tasks(named)
        fetch(named, offline)
    plain = "template" not in loaded.given or cfg.data.template in PLAIN
    if cfg.evaluate.save_dir:
        _make(Path(cfg.evaluate.save_dir).expanduser())
    return Asked(cfg, tasks, named, folders, plain, base)


def _make(folder: Path) -> None:
    """The folder for results, before any are made.  Raises OptionError when it has some, or cannot be."""
    if (folder / RESULTS).exists():
        raise OptionError(f"save_dir: {folder / RESULTS} is there already; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OptionError(f"save_dir: {folder} cannot be made: {problem.strerror}") from problem


def _require_harness() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingExtra("task: questions are asked by lm-evaluation-harness: pip install 'tunesmith[eval]'")


def _base(cfg: Config) -> Source | None:
    """The model to load for the comparison.  Raises OptionError when nothing says which that is."""
    name, model = cfg.evaluate.base_model, cfg.model
    if name is None and len(model.adapter_name_or_path) == 1:
        return None
    if name is None and model.adapter_name_or_path:
        name = model.model_name_or_path
    if name is None:
        name = run_options(Path(model.model_name_or_path).expanduser()).get("model_name_or_path")
    if not name or (name == model.model_name_or_path and not model.adapter_name_or_path):
        raise OptionError("compare_base: nothing says which model this one was tuned from; name it with --base_model")
    source = find(model.model_copy(update={"model_name_or_path": str(name), "adapter_name_or_path": []}))
    check(source)
    return source


def _rows(asked: Asked, engine: "TransformersEngine") -> "Rows":
    from tunesmith.evaluation.datasets import prepare

    return prepare(asked.cfg, engine, asked.folders)


def _measured(asked: Asked, engine: "TransformersEngine", rows: "Rows", who: str) -> "list[Measured]":
    """What one model is worth on all that is asked; `who` it is, for the progress."""
    from tunesmith.evaluation.datasets import measure
    from tunesmith.train.telling.progress import Progress

    found: list[Measured] = []
    if asked.tasks or asked.named:
        from tunesmith.data.chat_format import chat_format
        from tunesmith.evaluation.harness import How, ask

        cfg = asked.cfg
        how = How(
            lang=cfg.evaluate.task_lang or ("zh" if cfg.train.lang == "zh" else "en"),
            n_shot=cfg.evaluate.n_shot,
            batch_size=cfg.train.per_device_eval_batch_size,
            limit=cfg.data.max_samples,
            seed=cfg.train.seed,
            chat=None if asked.plain else chat_format(cfg.data, engine.tokenizer),
        )
        found += ask(
            engine.model,
            engine.tokenizer,
            asked.tasks,
            asked.named,
            how,
            lambda: Progress(f"{who}: questions", disable=cfg.train.disable_tqdm),
        )
    return [*found, *measure(asked.cfg, engine, rows, who)]


def _as_base(asked: Asked, engine: "TransformersEngine") -> AbstractContextManager[object]:
    """The engine with the model that the tuning began with: without its adapter, or with another model's weights."""
    from peft import PeftModel

    from tunesmith.models.load import attention_for, check_vocabulary, load_model

    if asked.base is None:
        assert isinstance(engine.model, PeftModel), "one adapter is on it"
        disabled: AbstractContextManager[object] = engine.model.disable_adapter()
        return disabled
    cfg, device, dtype = asked.cfg.model, engine.model.device, engine.model.dtype
    engine.model.to("meta")  # its weights go before others come
    attention = attention_for(asked.base, cfg, dtype=dtype, device=device)
    model = load_model(asked.base, cfg, dtype=dtype, device=device, trainable=False, attention=attention)
    check_vocabulary(model, engine.tokenizer)
    engine.model = model.to(device)
    return nullcontext()
