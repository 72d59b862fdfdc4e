"""What an hour on a device costs, as the options or the tables say.  Knows options; knows no run."""

from collections.abc import Sequence

from tunesmith.config.schema import Config
from tunesmith.estimate import money
from tunesmith.estimate.devices import Device
from tunesmith.estimate.money import Price


def price_of(cfg: Config, device: Device) -> Sequence[Price]:
    """Prices of one device and hour: the option's alone where it is written, then electricity, then those of one's own file
    and the table; of each those in `currency` first."""
    train = cfg.train
    if train.price is not None:
        return [Price("your price", train.price, train.currency)]
    if train.price_per_kwh is not None:
        watts = train.watts if train.watts is not None else device.watts
        return [money.electricity(watts, train.price_per_kwh, train.currency)] if watts else []
    return money.prices(device.name, train.currency)
