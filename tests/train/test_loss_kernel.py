"""The function that computes the loss: tried where there is a clock, kept in `run.json` and checkpoints, named by an option."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.log import OptionError
from tunesmith.losses import kernels
from tunesmith.train import checkpoint, loss_kernel

Train = Callable[..., Path]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds of each, which a test may change; the CPU's runs are tried by it, as a GPU's are by its own."""
    seconds = {"tunesmith": 0.002, "torch": 0.001}
    plain = loss_kernel.settle

    def timed(name: str, call: Callable[[], object]) -> float:
        call()
        return seconds[name]

    monkeypatch.setattr(loss_kernel, "settle", lambda *args, **kwargs: plain(*args, timed=timed, **kwargs))
    return seconds


def test_a_run_keeps_what_it_began_with(
    train: Train, clock: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"save_steps": 2, "max_steps": 2, "lr_scheduler_type": "constant"}
    folder = train("run", **options)
    assert "loss_kernel: torch computes the loss (torch 1.00 ms, tunesmith 2.00 ms)" in capsys.readouterr().err
    assert json.loads((folder / "run.json").read_text())["loss_kernel"]["name"] == "torch"
    assert checkpoint.read_position(folder / "checkpoint-2").loss_kernel == "torch"
    clock["torch"] = 9.0
    train("run", **options | {"max_steps": 4})
    assert "computes the loss" not in capsys.readouterr().err
    assert checkpoint.read_position(folder / "checkpoint-4").loss_kernel == "torch"


@pytest.mark.parametrize("options", [{"loss": "dft"}, {"deterministic": True}, {"disable_speedups": "fused_loss"}])
def test_nothing_is_tried_where_there_is_no_choice(
    options: dict[str, object], train: Train, clock: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    train("run", max_steps=1, **options)
    assert "computes the loss" not in capsys.readouterr().err


def test_one_may_be_named(train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    used = []
    plain = kernels.torch_cross_entropy
    monkeypatch.setitem(kernels.KERNELS, "torch", lambda *args, **kwargs: used.append(1) or plain(*args, **kwargs))
    train("named", max_steps=1, loss_kernel="torch")
    assert used
    used.clear()
    train("own", max_steps=1)
    assert not used and "computes the loss" not in capsys.readouterr().err
    with pytest.raises(OptionError, match="loss_kernel: Liger's kernels need a GPU"):
        train("liger", max_steps=1, loss_kernel="liger")
