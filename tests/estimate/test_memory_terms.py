"""The terms of a step's memory, and how many layers must be recomputed for it to fit."""

from dataclasses import replace

import pytest

from tunesmith.estimate.layer import Layer
from tunesmith.estimate.memory import GAPS, MARGIN, Memory, Step, fewest_recomputed, gib

STEP = Step(
    weights=1000,
    adapters=0,
    gradients=100,
    optimizer=200,
    layers=[Layer(kept=50, forward=60, backward=80)] * 4,
    recomputed=[Layer(kept=10, forward=60, backward=85)] * 4,
    given=10,
    loss=30,
    after_loss=0,
    moving=0,
)


@pytest.mark.parametrize(
    ("lowest", "activations", "loss", "workspace"),
    [
        (0, 210, 0, 30),  # going back through the highest layer
        (1, 170, 0, 30),
        (3, 90, 0, 30),
        (4, 50, 0, 75),  # the highest is made again, on top of what all layers keep
    ],
)
def test_the_moment_that_takes_most(lowest: int, activations: int, loss: int, workspace: int) -> None:
    assert STEP.peak(lowest) == Memory(1000, 0, 100, 200, activations, loss, workspace)


def test_other_moments() -> None:
    assert replace(STEP, loss=300).peak() == Memory(1000, 0, 100, 200, 210, 300, 0)
    assert replace(STEP, moving=1000).peak() == Memory(1000, 0, 100, 200, 0, 0, 1000)
    assert replace(STEP, after_loss=5).peak() == Memory(1000, 0, 100, 200, 210, 5, 30)
    assert replace(STEP, after_loss=300, embedded=300).peak() == Memory(1000, 0, 100, 200, 10, 600, 0)


@pytest.mark.parametrize(("kind", "least"), [("cpu", 4), ("cuda", 3)])
def test_no_more_layers_than_needed(kind: str, least: int) -> None:
    """Enough for a number of layers is enough for it, one byte less is not."""
    for count in range(least + 1):
        enough = STEP.peak(count).room(kind)
        assert fewest_recomputed(STEP, enough, kind) == count
        assert fewest_recomputed(STEP, enough - 1, kind) > count or count == least
    assert fewest_recomputed(STEP, 0, kind) == least, "nothing fits: so many take least"
    assert fewest_recomputed(replace(STEP, recomputed=[]), 0, kind) == 0


def test_gaps() -> None:
    memory = Memory(1000, 100, 10, 20, 300, 100, 7)
    assert memory.room("cuda") == int(437 * MARGIN)
    assert memory.room("cpu") == 437 + int(400 * GAPS)


def test_in_words() -> None:
    memory = Memory(3 << 30, 0, 1 << 20, 0, 1 << 29, 0, 0)
    assert str(memory) == "3.50 GiB: weights 3.00 GiB, gradients 1.0 MiB, activations 512.0 MiB"
    assert (memory.total, memory.to_come, gib(1 << 19)) == ((7 << 29) + (1 << 20), (1 << 29) + (1 << 20), "0.5 MiB")
