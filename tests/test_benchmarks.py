"""The benchmarks that need no reference run on small shapes, and both of their sides train alike."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_both_ways_of_the_gpu_benchmark_begin_with_the_same_losses() -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--models", "Llama-3.2-1B"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| Llama-3.2-1B")]
    assert len(rows) == 4 and not any("does not fit" in row for row in rows)
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        first, other = (float(re.split(r" \| ", row)[-1].split()[0]) for row in (ours, theirs))
        assert abs(first - other) < 2e-3
