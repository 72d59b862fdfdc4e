"""The benchmarks that need no reference run on small shapes, and both of their sides train alike."""

import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from surroundings import clean_environment
from warm import Warm

ROOT = Path(__file__).resolve().parent.parent

Benchmark = Callable[..., str]


@pytest.fixture
def benchmark(warm: Warm) -> Benchmark:
    """`benchmark("gpu.py", "--tiny")` runs one from the repository's root and returns what it prints."""

    def run(name: str, *words: str) -> str:
        return subprocess.run(
            [warm.bin / "python", ROOT / "benchmarks" / name, *words],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=300,
        ).stdout

    return run


def test_both_ways_of_the_gpu_benchmark_begin_with_the_same_losses(benchmark: Benchmark, tmp_path: Path) -> None:
    words = ["--tiny", "--models", "Llama-3.2-1B", "--only", "steps", "--output", str(tmp_path)]
    told = benchmark("gpu.py", *words)
    rows = [line for line in told.splitlines() if line.startswith("| Llama-3.2-1B")]
    assert len(rows) == 8 and not {"failed", "lost", "not fit"} & set(told.split())
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        first, other = (float(row.removesuffix(" |").split(" | ")[-1].split()[0]) for row in (ours, theirs))
        assert abs(first - other) < 2e-3
    assert [line for line in (tmp_path / "gpu.md").read_text().splitlines() if line in rows] == rows


def test_answering_is_measured_on_a_tiny_model(benchmark: Benchmark, tmp_path: Path) -> None:
    words = ["--tiny", "--ours-only", "--answers", "3", "--tokens", "4", "--work", str(tmp_path / "work")]
    assert "ours: 3 answers, " in benchmark("predict.py", *words)


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


WORKER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from gpu_worker import serve

def answer(question):
    print("a library prints")
    if question == 1:
        os._exit(7)
    if question == 2:
        time.sleep(60)
    return [question, os.getpid()]

serve("ready", answer)
"""


def test_a_process_that_is_lost_costs_its_own_case_alone(gpu: ModuleType, tmp_path: Path) -> None:
    worker = gpu.Worker([sys.executable, "-c", WORKER, str(ROOT / "benchmarks")], tmp_path / "log")
    (_, first), (number, second) = worker.ask(0, 60), worker.ask(3, 60)
    assert (number, second) == (3, first) and worker.first == "ready"
    with pytest.raises(gpu.Lost, match="its process ended with 7: a library prints"):
        worker.ask(1, 60)
    number, third = worker.ask(4, 60)
    assert number == 4 and third != first
    with pytest.raises(gpu.Lost, match="ended after 0 s"):
        worker.ask(2, 0.2)
    assert worker.ask(5, 60)[0] == 5
    worker.close()


def test_what_took_no_figures_has_no_ratio(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    class Scripted:
        first, closed = "a device", 0
        answers = iter([["100"], ["50"], gpu.Lost("ended"), ["200"], [gpu.MISSING], ["does not fit"]])

        def ask(self, question: int, seconds: float) -> list[str]:
            found = next(self.answers)
            if isinstance(found, Exception):
                raise found
            return [*found, "", "", "", ""]

        def close(self) -> None:
            self.closed += 1

    ways = [(gpu.STEPS, gpu.OURS), (gpu.STEPS, gpu.THEIRS), (gpu.SHORT, "tunesmith, fp8"), (gpu.SHORT, "again")]
    ways += [(gpu.SHORT, "third"), (gpu.SHORT, "fourth")]
    planned = [gpu.Case(table, "work", way, lambda: ()) for table, way in ways]
    worker = Scripted()
    gpu._measure(planned, worker, SimpleNamespace(output=None, seconds=9.0), time.monotonic() + 1000)
    ratios = [line.split(" | ")[3] for line in capsys.readouterr().out.splitlines() if line.startswith("| work |")][1:]
    assert [each.strip() for each in ratios] == ["", "2.00", "ours / theirs", "", "4.00", "", ""]
    assert worker.closed == 2


def test_functions_of_the_loss_agree(gpu: ModuleType) -> None:
    ground = gpu.bench(Path("nowhere"), tiny=True)
    heard = {name: gpu.hear(ground, "Llama-3.2-1B", name, trained_head=True) for name in ("tunesmith", "whole logits")}
    assert heard["tunesmith"].loss == pytest.approx(heard["whole logits"].loss, rel=1e-3)


def test_nothing_is_begun_without_time(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gpu.py", "--tiny", "--minutes", "0"])
        patch.setattr(gpu.Worker, "ask", lambda *arguments: pytest.fail("something was begun"))
        assert gpu.main() == 0
    assert "left out for want of time" in capsys.readouterr().out


def test_products_are_measured_on_a_small_layer(benchmark: Benchmark) -> None:
    assert benchmark("products.py", "--tiny", "--tokens", "32").splitlines()[-1].startswith("| 32 | ")


def test_ways_are_compared_with_what_lies_between_runs_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    ablation = importlib.import_module("ablation")
    whole = ablation.ALL
    assert ablation.order(["a", "b", "c", "d"]) == [whole, "a", "b", "c", whole, "d", whole]
    assert ablation.between([8.0, None, None, None, 4.0, None, 2.0]) == [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]


TIMED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import processes
processes.run(["sh", "-c", "echo $$; exec sleep 60"], Path(sys.argv[2]), {})
"""


def test_what_is_measured_ends_with_the_benchmark(tmp_path: Path) -> None:
    log = tmp_path / "log"
    benchmark = subprocess.Popen([sys.executable, "-c", TIMED, str(ROOT / "benchmarks"), str(log)])
    end = time.monotonic() + 30
    while not (log.is_file() and log.read_text().endswith("\n")):
        assert time.monotonic() < end
        time.sleep(0.05)
    measured = Path("/proc", log.read_text().strip())
    assert measured.is_dir()
    benchmark.terminate()
    assert benchmark.wait(30) == 128 + 15
    assert not measured.is_dir() or "\nState:\tZ" in (measured / "status").read_text()
