"""Where a command may write, known before it has done any work.  Knows paths and what a run reads."""

import re
from pathlib import Path

from tunesmith.config.load import Loaded
from tunesmith.log import OptionError


def output_file(word: str, written: str, loaded: Loaded, *, may_exist: bool) -> Path:
    """The path of a file to write, as `--word written` names it.

    Raises OptionError for a folder, a missing folder, a file that the options read, or, unless it `may_exist`, any file."""
    path = Path(written).expanduser()
    if path.is_dir():
        raise OptionError(f"--{word}: {path} is a folder; a file is meant")
    if not path.parent.is_dir():
        raise OptionError(f"--{word}: there is no folder {path.parent}")
    if path.exists() and not may_exist:
        raise OptionError(f"--{word}: {path} is there already; name a new file")
    if path.exists() and any(path.samefile(each) for each in _read(loaded) if each.exists()):
        raise OptionError(f"--{word}: {path} is read by this command; name another file")
    return path


def _read(loaded: Loaded) -> list[Path]:
    """Files that the options read, as far as they name them."""
    data = loaded.config.data
    starts = [Path(), *(file.parent for file in loaded.files)]
    names = [re.sub(r"(#\d+)?(@[\d.]+)?$", "", name) for name in (*data.dataset, *data.eval_dataset)]
    named = [start / name for start in starts for name in names]
    registered = [each for start in starts for each in (start / data.dataset_dir).glob("*")]
    return [*loaded.files, *named, *registered]
