"""What a rule looks at and what it finds.  Knows values; knows no file or flag."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.config.schema import Config


@dataclass(frozen=True)
class Finding:
    """`options[0]` is where it is told; all of them are what it is about."""

    kind: Literal["error", "warning", "note"]
    options: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Asked:
    """What a rule looks at: the config, what of it was written, its flat values, and the command."""

    config: Config
    given: frozenset[str]
    flat: dict[str, Any]
    defaults: dict[str, Any]
    command: str

    def wrote(self, name: str) -> bool:
        """Whether the user asked for something else than the default."""
        return name in self.given and self.flat[name] != self.defaults[name]


Rule = Callable[[Asked], Iterator[Finding]]
