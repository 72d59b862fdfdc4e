"""Operations, sharing, devices and money, worked out by hand."""

import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tunesmith.estimate import devices, history, money, shapes, sharding, work
from tunesmith.estimate.formula import Method, trained
from tunesmith.estimate.memory import GAPS, GIB, Memory
from tunesmith.estimate.words import duration, durations
from tunesmith.estimate.work import Range, Rows
from tunesmith.log import OptionError

SHAPE = shapes.read(
    {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "tie_word_embeddings": False,
    }
)  # fmt: skip
assert SHAPE is not None
LAYER = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128
"""Weights of a layer's linear modules."""


def test_full_tuning_is_six_operations_a_weight_and_token() -> None:
    rows = Rows(tokens=1000, places=1000, squares=0)
    weights = 4 * LAYER + 64 * 100  # with the head, without embeddings and norms
    found = work.training(SHAPE, Method("full"), rows, recomputed=False)
    assert found == pytest.approx(6 * weights * 1000, rel=0.01)  # norms
    assert work.training(SHAPE, Method("full"), rows, recomputed=True) == found + 2 * 4 * LAYER * 1000


def test_lora_is_four_and_six_for_its_own() -> None:
    rows = Rows(tokens=1000, places=500, squares=0)
    method = Method("lora", 8, SHAPE.linears)
    own, _ = trained(SHAPE, method)
    assert own == 4 * 8 * sum(each.inputs + each.outputs for each in SHAPE.linears)
    found = work.training(SHAPE, method, rows, recomputed=False)
    assert found == 4 * (4 * LAYER) * 1000 + 6 * own * 1000 + 4 * 64 * 100 * 500


def test_frozen_layers_below_are_passed_forward_only() -> None:
    rows = Rows(tokens=1000, places=0, squares=0)
    found = work.training(SHAPE, Method("freeze", trained_layers=1), rows, recomputed=False)
    assert found == (2 * 4 * LAYER + 2 * LAYER + 2 * SHAPE.layer_numbers) * 1000


def test_attention_is_causal() -> None:
    """One row of 10 tokens: 10 x 10 / 2 pairs, times two products of two operations a number, in 4 layers of width 64."""
    rows = Rows(tokens=0, places=0, squares=100)
    assert work.forward(SHAPE, rows) == 4 * 2 * 2 * (100 / 2) * 64


def test_keys_and_values() -> None:
    assert work.cache_bytes(SHAPE, rows=3, tokens=50, itemsize=2) == 2 * 4 * 2 * 16 * 3 * 50 * 2


MEMORY = Memory(800, 80, 100, 200, 50, 10, 5)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("ddp", replace(MEMORY, gradients=200)),
        ("zero1", replace(MEMORY, optimizer=50)),
        ("zero2", replace(MEMORY, optimizer=50, gradients=25)),
        ("zero3", Memory(200, 20, 25, 50, 50, 10, 5 + 220)),
        ("fsdp", Memory(200, 20, 25, 50, 50, 10, 5 + 220)),
        ("offload", Memory(200, 20, 25, 0, 50, 10, 5 + 220)),
    ],
)
def test_what_is_shared_among_four(way: str, expected: Memory) -> None:
    """Of 880 bytes of weights in 8 layers, two layers are whole at one time."""
    assert sharding.shared(MEMORY, way, devices=4, layers=8) == expected


def test_devices_by_any_name() -> None:
    assert [each.name for each in devices.all_named("A100-80, nvidia geforce rtx 4090,h100")] == [
        "a100-80",
        "4090",
        "h100-80",
    ]
    assert len(devices.all_named("all")) == len(devices.known())
    with pytest.raises(OptionError, match="unknown device 'a100-8'; did you mean 'a100-80'"):
        devices.named("a100-8")
    found = devices.like("NVIDIA H200")
    assert found is not None and found.name == "h200"


def test_a_device_fits_what_it_holds_with_gaps_and_its_driver() -> None:
    device = devices.named("4090")
    most = (device.memory - devices.CONTEXT_BYTES - 10 * GIB) / 1.1
    assert device.fits(Memory(10 * GIB, 0, 0, 0, int(most) - 1, 0, 0))
    assert not device.fits(Memory(10 * GIB, 0, 0, 0, int(most) + 2, 0, 0))


def test_what_comes_and_goes_on_a_cpu_leaves_gaps() -> None:
    device = devices.Device("CPU", "cpu", 8 * GIB, 0.0, 0.0, 0.0, taken=GIB)
    assert device.needs(Memory(100, 10, 20, 30, 0, 0, 7)) == GIB + 167
    assert device.needs(Memory(100, 10, 20, 30, 2000, 400, 7)) == GIB + 167 + int(2400 * (1 + GAPS))


def test_money_is_price_times_hours_times_devices() -> None:
    price = money.Price("mine", 2.5, "USD")
    assert price.of(Range(1800, 3600, 7200), devices=4) == Range(5, 10, 20)
    rented = replace(price, devices=8)
    assert rented.of(Range(3600, 3600, 3600), devices=1).likely == 20, "eight are paid for together"
    assert money.electricity(500, 0.8, "CNY").each == pytest.approx(0.4)


def test_shipped_prices_are_dated_and_sourced() -> None:
    found = [price for name in devices.known() for price in money.prices(name)]
    assert found
    assert all(price.date and price.source and price.url.startswith("https://") for price in found)
    assert all(price.date in str(price) and price.source in str(price) for price in found)


def test_prices_in_the_currency_that_is_asked_for_come_first_and_none_is_converted() -> None:
    dollars, yuan = (money.prices("a100-40", currency) for currency in ("USD", "CNY"))
    assert dollars[0].currency == "USD" and yuan[0].currency == "CNY"
    assert {str(price) for price in dollars} == {str(price) for price in yuan}
    assert yuan[0].of(Range(3600, 3600, 3600), devices=1).likely == pytest.approx(172.873412), (
        "eight are paid for together"
    )
    ways = [price.way for price in money.prices("4090")]
    assert ways == sorted(ways) and set(ways) == {"on demand", "spot"}, "what may be taken away comes last"


def test_there_are_prices_in_dollars_and_yuan_on_demand_and_spot() -> None:
    found = [price for name in devices.known() for price in money.prices(name)]
    assert {("USD", "on demand"), ("USD", "spot"), ("CNY", "on demand")} <= {
        (each.currency, each.way) for each in found
    }
    assert all(date.fromisoformat(each.date) for each in found)


def test_every_price_is_of_a_device_in_the_table() -> None:
    names = [instance["device"] for instance in tomllib.loads(money.SHIPPED.read_text(encoding="utf-8"))["instance"]]
    assert set(names) <= set(devices.known())


@pytest.mark.parametrize("name", devices.known())
def test_every_figure_of_a_device_says_where_it_was_read(name: str) -> None:
    entry = tomllib.loads(devices.TABLE.read_text(encoding="utf-8"))[name]
    date.fromisoformat(entry["read"])
    told = " ".join(entry["source"])
    assert all(figure in told for figure in ("memory", "half", "fp32", "watts"))


def test_an_a10g_is_no_a10() -> None:
    found = devices.like("NVIDIA A10G")
    assert found is not None and (found.name, found.half) == ("a10g", 70e12)


def test_prices_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prices.toml"
    monkeypatch.setenv(money.VARIABLE, str(file))
    entry = '[[instance]]\nname = "shop"\ndevice = "4090"\ndevices = 2\ncurrency = "CNY"\ndate = "2026-11-01"\nsource = "own"\n'
    file.write_text(entry + "on_demand = 4.0\nspot = 3.0\n", encoding="utf-8")
    found = money.prices("4090")
    assert [(price.each, price.way) for price in found[:2]] == [(2.0, "on demand"), (1.5, "spot")], (
        "before the package's"
    )
    assert str(found[1]) == "shop, spot, of 2026-11-01 (own): CNY 1.50 a device and hour"
    assert len(found) > 2
    file.write_text(entry.replace("shop", found[2].name) + "on_demand = 4.0\n", encoding="utf-8")
    replaced = [price.each for price in money.prices("4090") if price.name == found[2].name]
    assert replaced == [2.0], "the same name replaces"
    for text, words in ((entry, "neither on_demand nor spot"), ("x = 1", "no \\[\\[instance"), ("[", "as TOML")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(OptionError, match=words):
            money.prices("4090")


def test_finished_runs_tell_of_later_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(history.VARIABLE, str(tmp_path))
    assert history.shares("x", "cpu", 512) == history.UNKNOWN["cpu"]
    for share in (0.2, 0.3, 0.25):
        history.remember("x", 512, share)
    (tmp_path / history.NAME).open("a").write("half a li")
    found = history.shares("x", "cpu", 600)
    assert (found.low, found.likely, found.high) == (pytest.approx(0.16), 0.25, pytest.approx(0.375))
    assert history.runs_known("x", 600) == 3
    assert history.shares("x", "cpu", 2048) == history.UNKNOWN["cpu"], "much wider"
    assert history.shares("y", "cuda", 512) == history.UNKNOWN["cuda"]


def test_in_words() -> None:
    assert [duration(seconds) for seconds in (3, 720, 7200, 300_000)] == ["3 s", "12 min", "2.0 h", "3.5 days"]
    assert durations(Range(30, 60, 600)) == "about 60 s (30 s to 10 min)"
