"""Whether the hub, from which the harness's own tasks have their data, can be asked.  Knows no task and no model."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from tunesmith.log import OptionError

PATIENCE_SECONDS = 10
"""How long the hub may take to say that it is there."""


def be_offline_unless_reached(named: Sequence[str]) -> str | None:
    """Why the hub cannot be asked, after which its libraries ask no more, which takes them minutes; None when it can.

    Raises OptionError when `named` need it, since nothing was fetched before.
    """
    reason = _unreachable()
    if reason is None:
        return None
    if not _has_fetched():
        raise OptionError(
            f"task: {', '.join(named)}: no file or folder here; the harness's own tasks have their data from "
            f"{constants.ENDPOINT}, which cannot be reached: {reason}"
        )
    # Read at each request; from the environment only when these libraries are imported.
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    import datasets

    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True
    return reason


def _unreachable() -> str | None:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_SECONDS)
    except Exception as problem:  # of a library for HTTP, which is another one in other versions of huggingface_hub
        return " ".join(str(problem).split())[:200] or type(problem).__name__
    return None


def _has_fetched() -> bool:
    """Whether any data of a hub are on this machine."""
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
    fetched = Path(constants.HF_HUB_CACHE)
    return (prepared.is_dir() and any(prepared.iterdir())) or any(fetched.glob("datasets--*"))
