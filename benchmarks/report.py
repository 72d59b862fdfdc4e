"""What a benchmark prints: the machine and the command, then tables in Markdown.  Knows numbers; knows not what they say."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from processes import THREADS

PRODUCT = 2048
"""Rows and columns of the matrices whose product tells the machine's rate; fewer where one of less takes long enough."""

LONG_ENOUGH_SECONDS = 0.1

Both = tuple[Sequence[float], Sequence[float]]
"""Ours and the reference's, of each round."""


def heading() -> str:
    """Processor, cores, load, torch and its own rate of products; then the command.  Imports torch."""
    import torch

    rates = ", ".join(
        f"{_teraflops(kind):.2g} in {name}" for name, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32))
    )
    return (
        f"{_processor()}, {os.cpu_count()} cores ({THREADS} used, load {os.getloadavg()[0]:.1f}), torch "
        f"{torch.__version__}: {rates} TFLOP/s; `{' '.join(['python', *sys.argv])}`\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def beside(measured: Mapping[str, Both]) -> str:
    """Both sides' medians, and the median of each round's own ratio, by what was measured."""
    return table(
        ("", "LLaMA-Factory", "tunesmith", "ours / theirs"),
        [
            (name, *(f"{figure(statistics.median(each))}" for each in (theirs, ours)), f"{ratio(ours, theirs):.2f}")
            for name, (ours, theirs) in measured.items()
        ],
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over rounds of ours divided by theirs."""
    return statistics.median(own / other for own, other in zip(ours, theirs, strict=True))


def figure(value: float) -> str:
    """A number with as many places as mean something."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _teraflops(kind: object) -> float:
    """The best of a second's products, 10^12 operations a second."""
    import torch

    torch.set_num_threads(int(THREADS))
    rows = 256
    while rows < PRODUCT and _product_seconds(rows, kind, 0) < LONG_ENOUGH_SECONDS:
        rows *= 2  # a processor without bf16 would take minutes for the largest
    return 2 * rows**3 / _product_seconds(rows, kind, 1) / 1e12


def _product_seconds(rows: int, kind: object, duration: float) -> float:
    """The least time of a product, of as many as fit into `duration`."""
    import torch

    one, other = (torch.randn(rows, rows, dtype=kind) for _ in range(2))  # type: ignore[call-overload]
    best, end = float("inf"), time.perf_counter() + duration
    while best == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - began)
    return best


def _processor() -> str:
    """What the processor calls itself."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
