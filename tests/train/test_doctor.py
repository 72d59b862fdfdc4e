"""The doctor finds that everything holds, and finds what does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.jobs.start import doctor_command
from tunesmith.train import checkpoint, doctor

NAMES = [
    "accumulation = one large batch",
    "rows behind one another = alone",
    "packed = unpacked",
    "resumed = straight on, bit for bit",
    "attention: sdpa = eager",
]


def verdicts(printed: str) -> dict[str, str]:
    """Check -> what the table says of it."""
    lines = [line for line in printed.splitlines() if line.endswith(("holds", "DOES NOT HOLD")) or "left out:" in line]
    return {line[:36].strip(): line.split()[-1] for line in lines if not line.startswith("everything")}


@pytest.mark.parametrize("way", ["full", "freeze", "lora"])
def test_everything_holds(way: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"finetuning_type={way}", "compute_type=fp32", f"model_name_or_path={tiny_model}", "lora_dropout=0.1"]
    assert doctor_command(words if way == "lora" else words[:-1]) == 0
    found = verdicts(capsys.readouterr().out)
    of_adapters = dict.fromkeys(["adapter at step 0 = base", "merged = unmerged"], "holds" if way == "lora" else "none")
    wanted = dict.fromkeys(NAMES, "holds") | of_adapters
    assert {name: found.get(name) for name in wanted} == wanted


def test_rows_that_are_padded_hold_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor_command(["compute_type=bf16", "disable_speedups=no_padding,fused_loss"]) == 0
    assert verdicts(capsys.readouterr().out)["rows padded together = alone"] == "holds"


def test_a_checkpoint_that_forgets_the_optimizer_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "load_optimizer_state", lambda *_: None)
    assert doctor_command(["compute_type=fp32"]) == 1
    printed = capsys.readouterr().out
    assert verdicts(printed)["resumed = straight on, bit for bit"] == "HOLD"
    assert printed.endswith("1 do not hold: resumed = straight on, bit for bit\n")


def test_gradients_that_are_averaged_wrongly_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exact: Callable[..., Any] = doctor.loop.backward

    def by_micro_batch(passes: Any, window: Any, runtime: Any, weight: float) -> Any:
        return exact(passes, window, runtime, weight * (1 + 0.01 * len(window.batches)))

    monkeypatch.setattr(doctor.loop, "backward", by_micro_batch)
    assert doctor_command(["compute_type=fp32"]) == 1
    assert verdicts(capsys.readouterr().out)["accumulation = one large batch"] == "HOLD"


def test_two_processes_are_tried(run_warm: Callable[..., Any]) -> None:
    done = run_warm("doctor", "nproc_per_node=2", "compute_type=fp32", "device=cpu")
    assert done.returncode == 0, done.stderr
    found = verdicts(done.stdout)
    assert found["sums over processes"] == "holds"
    assert found["gradient of all processes = of one"] == "holds"
    assert found["resumed = straight on, bit for bit"] == "holds"
