"""Sets of defaults with a name, as data beside this file: what a profile sets, below everything that a user writes."""

import tomllib
from pathlib import Path

from tunesmith.config import compat
from tunesmith.config.checks import Value, check
from tunesmith.config.written import Place, Problems, Source, Written

BELOW = -1
"""The layer of a profile: below every file."""


def profile(name: str, problems: Problems) -> dict[str, Value]:
    """What the profile `name` sets, by canonical names."""
    source = Source(Path(__file__).with_name(f"{name}.toml"), BELOW, problems)
    found: dict[str, Value] = {}
    for option, value in tomllib.loads(source.path.read_text(encoding="utf-8")).items():
        written = Written(option, value, Place(BELOW, 0, Path(f"profile {name}")), option, is_text=False)
        canonical = compat.canonical(option)
        entry = check(canonical, written, problems)
        assert entry is not None, f"{source.path}: {option} sets nothing"
        found[canonical] = entry
    return found
