"""Devices that a run may be estimated for: a table, and this machine.  Knows names and numbers; imports no torch."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tunesmith import catalog
from tunesmith.estimate.memory import Memory
from tunesmith.log import OptionError

TABLE = Path(__file__).parent / "devices.toml"

CONTEXT_BYTES = 600 << 20
"""What a GPU's driver and kernels take for themselves."""


@dataclass(frozen=True, slots=True)
class Device:
    """`half`, `fp32`: operations a second at the most; 0 where nobody knows.  `taken`: bytes that are gone before a tensor
    is there."""

    name: str
    kind: Literal["cpu", "cuda"]
    memory: int
    half: float
    fp32: float
    watts: float
    bf16: bool = True
    fp8: bool = False
    taken: int = CONTEXT_BYTES

    def fits(self, memory: Memory) -> bool:
        """Whether a step has room, with what gaps between blocks take."""
        return self.needs(memory) <= self.memory

    def needs(self, memory: Memory) -> int:
        """Bytes that must be there for a step, with the gaps between blocks."""
        return memory.weights + memory.adapters + memory.room(self.kind) + self.taken

    def rate(self, itemsize: int) -> float:
        """Operations a second at the most with numbers of so many bytes."""
        return self.half if itemsize == 2 else self.fp32


@cache
def _table() -> dict[str, Device]:
    read = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        name: Device(
            name,
            "cuda",
            found["memory_mib"] << 20,
            found["half"],
            found["fp32"],
            found["watts"],
            bf16=found.get("bf16", True),
            fp8=found.get("fp8", False),
        )
        for name, found in read.items()
    }


@cache
def _aliases() -> dict[str, str]:
    """Every spelling, in small letters -> the name in the table."""
    read = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    others = {
        other.strip().lower(): name
        for name, found in read.items()
        for other in (*found["names"].split(","), *found.get("also", "").split(","))
        if other.strip()
    }
    return others | {name: name for name in read}


def known() -> list[str]:
    """The names in the table."""
    return list(_table())


def named(written: str) -> Device:
    """The device of that name.  Raises OptionError with the names there are."""
    name = _aliases().get(written.strip().lower())
    if name is None:
        guess = catalog.did_you_mean(written, _aliases())
        raise OptionError(f"--devices: unknown device '{written}'{guess or ';'} known: {', '.join(known())}")
    return _table()[name]


def all_named(written: str) -> Sequence[Device]:
    """Those of a comma list; `all` means the table."""
    if written.strip() == "all":
        return list(_table().values())
    return [named(each) for each in written.split(",") if each.strip()]


def like(driver_name: str) -> Device | None:
    """The table's device that a driver calls so."""
    name = _aliases().get(driver_name.strip().lower())
    return None if name is None else _table()[name]
