"""What a run has before it loads weights: its rows, and its folder.  Knows no model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.pipeline import Prepared
from tunesmith.jobs.folder import Claim
from tunesmith.models.where import Source
from tunesmith.templates.conversation import ChatFormat
from tunesmith.train.stages import Stage


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
