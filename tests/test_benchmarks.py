"""The benchmarks that need no reference run on small shapes, and both of their sides train alike."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def test_both_ways_of_the_gpu_benchmark_begin_with_the_same_losses(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--models", "Llama-3.2-1B", "--only", "steps"]
    command += ["--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| Llama-3.2-1B")]
    assert len(rows) == 6 and "failed" not in done.stdout
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        first, other = (float(row.removesuffix(" |").split(" | ")[-1].split()[0]) for row in (ours, theirs))
        assert abs(first - other) < 2e-3
    assert [line for line in (tmp_path / "gpu.md").read_text().splitlines() if line in rows] == rows


def test_answering_is_measured_on_a_tiny_model(tmp_path: Path) -> None:
    words = ["--tiny", "--ours-only", "--answers", "3", "--tokens", "4", "--work", str(tmp_path / "work")]
    done = subprocess.run(
        [sys.executable, "benchmarks/predict.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "ours: 3 answers, " in done.stdout


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


def test_a_case_that_fails_is_a_line_and_the_rest_goes_on(gpu: ModuleType) -> None:
    def fail() -> tuple[str, ...]:
        raise ValueError("no | such thing\nat all")

    for table, names in gpu.HEADS.items():
        cells = gpu.tell(gpu.Case(table, "one", "other", fail), torch.device("cpu"))
        assert len(cells) == len(names) - 2 and cells[0] == "failed: ValueError: no / such thing"


def test_functions_of_the_loss_agree(gpu: ModuleType) -> None:
    ground = gpu.bench(Path("nowhere"), tiny=True)
    heard = {name: gpu.hear(ground, "Llama-3.2-1B", name, trained_head=True) for name in ("tunesmith", "whole logits")}
    assert heard["tunesmith"].loss == pytest.approx(heard["whole logits"].loss, rel=1e-3)


def test_nothing_is_begun_without_time(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gpu.py", "--tiny", "--minutes", "0"])
        assert gpu.main() == 0
    assert "left out for want of time" in capsys.readouterr().out


def test_products_are_measured_on_a_small_layer() -> None:
    command = [sys.executable, "benchmarks/products.py", "--tiny", "--tokens", "32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1].startswith("| 32 | ")
