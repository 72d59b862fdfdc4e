"""What a run costs: unit price x hours x devices, or electricity.  Knows prices and hours; knows no model.

A machine is paid for by the hour, whole: never by the share of its memory that is used.
"""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.estimate.work import Range
from tunesmith.log import OptionError

SHIPPED = Path(__file__).parent / "prices.toml"
OWN = "~/.config/tunesmith/prices.toml"
VARIABLE = "TUNESMITH_PRICES"

REQUIRED = {"name": str, "device": str, "devices": int, "currency": str, "date": object, "source": str}
"""What each instance must say; one of on_demand and spot besides."""


@dataclass(frozen=True, slots=True)
class Price:
    """`each`: of one device an hour."""

    name: str
    each: float
    currency: str
    device: str = ""
    way: str = ""
    """`on demand`, `spot`, or nothing for a price of one's own."""
    devices: int = 1
    """That are rented together."""
    date: str = ""
    """When it was that."""
    source: str = ""
    """Who says so, in a few words."""
    url: str = ""

    def __str__(self) -> str:
        when = f", {self.way}, of {self.date} ({self.source})" if self.date else ""
        return f"{self.name}{when}: {self.currency} {self.each:.2f} a device and hour"

    def of(self, seconds: Range, devices: int) -> Range:
        """What so many devices cost for so long; of an instance, all of its devices are paid."""
        rented = -(-devices // self.devices) * self.devices
        return seconds.times(self.each * rented / 3600)


def prices(device: str, currency: str = "USD") -> list[Price]:
    """What the device can be had for: by a file of one's own first, then by the package's; of each those in `currency` first,
    what is there on demand before what may be taken away, and the cheapest first.  Raises OptionError for a file that is not
    as it must be."""
    files = [_read(file) for file in _files()]
    own = {instance["name"] for instances in files[1:] for instance in instances}
    found = {instance["name"]: instance for instances in files for instance in instances}
    made = [
        Price(
            instance["name"],
            instance[way] / instance["devices"],
            instance["currency"],
            instance["device"],
            way.replace("_", " "),
            instance["devices"],
            str(instance["date"]),
            instance["source"],
            instance.get("url", ""),
        )
        for instance in found.values()
        for way in ("on_demand", "spot")
        if way in instance and instance["device"] == device
    ]
    return sorted(
        made, key=lambda one: (one.name not in own, one.currency != currency, one.currency, one.way == "spot", one.each)
    )


def electricity(watts: float, per_kwh: float, currency: str) -> Price:
    """What running one's own device costs, at so many watts."""
    return Price(f"electricity, {watts:.0f} W at {currency} {per_kwh:g} a kWh", watts / 1000 * per_kwh, currency)


def _files() -> Sequence[Path]:
    own = Path(os.environ.get(VARIABLE) or OWN).expanduser()
    return [SHIPPED, *([own] if own.is_file() else [])]


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise OptionError(f"{file}: can't be read as TOML: {problem}") from problem
    instances = written.get("instance")
    if not isinstance(instances, list):
        raise OptionError(f"{file}: there is no [[instance]]")
    for number, instance in enumerate(instances, start=1):
        lacking = [name for name, kind in REQUIRED.items() if not isinstance(instance.get(name), kind)]
        if lacking or instance["devices"] < 1:
            raise OptionError(f"{file}: instance {number}: {(lacking or ['devices'])[0]} is missing or no such value")
        if not any(isinstance(instance.get(way), int | float) for way in ("on_demand", "spot")):
            raise OptionError(f"{file}: instance {number}: neither on_demand nor spot is a number")
    return instances
