"""What a run has before it loads weights: its rows, and its folder.  Knows no weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import catalog, shortage
from tunesmith.config.load import Loaded
from tunesmith.data import pipeline
from tunesmith.data.chat_format import chat_format, compare_with_own
from tunesmith.data.pipeline import Prepared
from tunesmith.jobs.folder import Claim
from tunesmith.log import OutOfMemory
from tunesmith.models.new_tokens import warn_of_lost_tokens
from tunesmith.models.tokenizer import check_ids, load_tokenizer
from tunesmith.models.where import Source, find, find_adapters
from tunesmith.templates.conversation import ChatFormat
from tunesmith.train.stages import Stage
from tunesmith.train.telling.progress import Progress


@dataclass(frozen=True)
class Inputs:
    """What is read and checked first.  `tokenizer`: transformers' own."""

    stage: Stage
    source: Source
    tokenizer: Any
    chat: ChatFormat | None
    prepared: Prepared


@dataclass(frozen=True)
class Place:
    """Where a run writes, and the checkpoint it goes on from; the same on every process."""

    folder: Path
    checkpoint: Path | None
    claim: Claim | None
    """Held by rank 0; the folder is free again when its process ends."""


def read_inputs(loaded: Loaded, *, keep: bool = True) -> Inputs:
    """Tokenizer, chat format and prepared rows, as every command that works on a run's data needs them.  `keep`: rows that
    are prepared are kept on disk, as options say."""
    cfg = loaded.config
    source = find(cfg.model)
    tokenizer = load_tokenizer(source, cfg.model)
    check_ids(tokenizer, source, cfg.model)
    warn_of_lost_tokens(tokenizer, find_adapters(cfg.model))
    stage = catalog.find("stage", cfg.train.stage)
    chat = chat_format(cfg.data, tokenizer) if stage.chats else None
    if chat is not None:
        compare_with_own(cfg.data, chat, tokenizer)
    try:
        with Progress("preparing rows", disable=cfg.train.disable_tqdm) as progress:
            prepared = pipeline.prepare(
                cfg.data,
                stage=cfg.train.stage,
                seed=cfg.train.seed if cfg.train.data_seed is None else cfg.train.data_seed,
                tokenizer=tokenizer,
                chat_format=chat,
                search_folders=[file.parent for file in loaded.files],
                on_progress=progress.rows,
                keep=keep,
            )
    except Exception as problem:
        found = shortage.found(problem)
        if found is None:
            raise
        less = "fewer preprocessing_num_workers, a smaller preprocessing_batch_size, or streaming: true takes less"
        raise OutOfMemory(f"out of memory while rows were prepared: {less} ({found})") from problem
    return Inputs(stage, source, tokenizer, chat, prepared)
