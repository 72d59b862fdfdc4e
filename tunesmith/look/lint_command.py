"""`tunesmith lint`: what is wrong with data, and the data without it.  Knows words and order; `data` knows how."""

import json
from pathlib import Path

from tunesmith.config import own_words
from tunesmith.config.load import Loaded, load
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.faults.lint import Linter, prompts
from tunesmith.data.faults.lint_rows import Words
from tunesmith.data.faults.mend import Mended, mended
from tunesmith.data.reading.sources import Dataset, find_datasets
from tunesmith.files import open_beside
from tunesmith.log import OptionError, note, say
from tunesmith.look.outputs import output_file
from tunesmith.train.telling.progress import Progress

ERRORS_FOUND = 3
"""Exit code."""


def lint_command(arguments: list[str]) -> int:
    """Look for what is wrong with the data of a run; returns the exit code: 3 when there are errors, 0 otherwise."""
    own, others = own_words.take("lint", arguments)
    loaded = load(others, command="lint")
    data = loaded.config.data
    folders = [file.parent for file in loaded.files]
    trained = find_datasets(data.dataset, data.dataset_dir, folders)
    evaluated = find_datasets(data.eval_dataset, data.dataset_dir, folders, option="eval_dataset")
    fixed = output_file("fix", own["fix"], loaded, may_exist=False) if "fix" in own else None
    if fixed and len(trained) > 1:
        names = ", ".join(dataset.name for dataset in trained)
        raise OptionError(f"--fix: writes one dataset at a time, got {names}; name one with dataset=")
    linter = _linter(loaded)
    with Progress("looking at rows", disable=loaded.config.train.disable_tqdm) as progress:
        findings = linter.lint(trained, evaluated, progress.advance)
    if "json" in own:
        say(json.dumps(findings.as_dict(), ensure_ascii=False))
    else:
        for line in findings.lines(data.max_reported_rows):
            say(line)
    if fixed:
        _write(fixed, trained[0], evaluated, loaded)
    return ERRORS_FOUND if findings.count("error") else 0


def _linter(loaded: Loaded) -> Linter:
    """A linter that knows tokens if the options name a model; otherwise nothing heavy is imported."""
    cfg = loaded.config
    data = cfg.data.model_copy(update={"overflow": "truncate"})  # long rows are findings here, whatever becomes of them
    seed = cfg.train.seed if cfg.train.data_seed is None else cfg.train.data_seed
    becomes = data.allow_special_tokens
    if not cfg.model.model_name_or_path:
        note("lint", "no model_name_or_path is given, so lengths and end tokens are not looked at")
        return Linter(data, None, Words.of((), becomes=becomes), seed=seed, stage=cfg.train.stage)
    from tunesmith.data.chat_format import chat_format
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.models.where import find

    tokenizer = load_tokenizer(find(cfg.model), cfg.model)
    chat = None if cfg.train.stage == "pt" else chat_format(data, tokenizer)
    encoder = Encoder(tokenizer, chat, data)
    return Linter(
        data, encoder, Words.of(list(encoder.vocabulary.controls), becomes=becomes), seed=seed, stage=cfg.train.stage
    )


def _write(path: Path, dataset: Dataset, evaluated: list[Dataset], loaded: Loaded) -> None:
    """Write the rows of a dataset as they should have been; the file is whole or not there."""
    done, stage = Mended(), loaded.config.train.stage
    rows = mended(
        dataset,
        dataset.source.read(),
        done,
        stage=stage,
        placeholders=loaded.config.data.placeholders,
        evaluated=prompts(evaluated, stage),
    )
    with open_beside(path) as file:
        for values in rows:
            file.write(json.dumps(values, ensure_ascii=False, default=str).encode() + b"\n")
    note("fix", f"{path} holds {done}; it is described as {dataset.name} is")
