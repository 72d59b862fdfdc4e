"""What each part of tunesmith's speed is worth: training with all of them, without each one, and without any.

    python benchmarks/ablation.py [--case lora] [--steps 4] [--accumulation 4] [--rounds 1] [--work FOLDER] [--tiny]

Each way is a whole process on the CPU with the same rows, order and model; rounds go through all ways in turns.  Tokens are
counted without padding, after the first two steps.  A row for each name that `disable_speedups` knows, so that a new one
gets its row by itself.  Machines are faster now and slower then, so everything on is run again after every third way, and a way
is compared with what lies between its runs before and behind.  Knows nothing of how a part works.
"""

import argparse
import statistics
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import report
import sides
import train
from reference import CACHE
from sides import OURS, Run

from tunesmith.config.model import ModelConfig

ALL = "everything on"

APART = 3
"""Ways between two runs of everything on."""


def main() -> int:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries that make the model
    case = train.CASES[arguments.case]
    if arguments.tiny:
        case = replace(case, shape=train.TINY, vocabulary=20_000)
    print(report.heading(), flush=True)
    shared = train.start(arguments.work, case) | case.ours
    shared |= {"max_steps": arguments.steps, "gradient_accumulation_steps": arguments.accumulation}
    shown = ways(case.ours.get("gradient_checkpointing") is True)
    runs: list[tuple[str, Run]] = []
    for place, way in enumerate(order(list(shown)[1:] * arguments.rounds)):
        runs.append((way, sides.train(OURS, shared | shown[way], arguments.work / str(place))))
        print(f"{way}: {_rate(runs[-1][1]):.1f} tokens/s", flush=True)
    print(
        f"\n{arguments.case}, {arguments.steps} steps of 2 x {arguments.accumulation} rows, rounds: {arguments.rounds}\n"
    )
    print(report.table(("", "tokens/s", "of all", "peak MiB", "of all"), (_row(way, runs) for way in shown)))
    return 0


def ways(checkpointing: bool) -> dict[str, dict[str, object]]:
    """What is left out or added -> the options that do so."""
    names = speedups()
    left_out: dict[str, dict[str, object]] = {f"without {name}": {"disable_speedups": name} for name in names}
    plain: dict[str, object] = {"disable_speedups": ",".join(names)}
    other = "without gradient_checkpointing" if checkpointing else "with gradient_checkpointing"
    return {ALL: {}} | left_out | {"without any": plain, other: {"gradient_checkpointing": not checkpointing}}


def speedups() -> list[str]:
    """The names that `disable_speedups` knows."""
    (choice,) = get_args(ModelConfig.model_fields["disable_speedups"].annotation)
    return list(get_args(choice))


def order(others: list[str]) -> list[str]:
    """The ways in turns, with everything on at both ends and after every few."""
    found = [ALL]
    for start in range(0, len(others), APART):
        found += [*others[start : start + APART], ALL]
    return found


def _row(way: str, runs: list[tuple[str, Run]]) -> list[str]:
    cells = [way]
    for measure in (_rate, _peak):
        found = [measure(run) for name, run in runs if name == way]
        expected = between([measure(run) if name == ALL else None for name, run in runs])
        shares = [measure(run) / whole for (name, run), whole in zip(runs, expected, strict=True) if name == way]
        cells += [report.figure(statistics.median(found)), f"{statistics.median(shares):.2f}"]
    return cells


def between(known: list[float | None]) -> list[float]:
    """Each value that is None, on the line between the nearest known ones; the first and the last are known."""
    at = [place for place, value in enumerate(known) if value is not None]
    return [float(value) for value in np.interp(range(len(known)), at, [known[place] for place in at])]


def _rate(run: Run) -> float:
    return train.rate(run, train.tokens_by_step(run))


def _peak(run: Run) -> float:
    return run.cost.mebibytes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(train.CASES), default="lora")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=CACHE / f"ablation-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--tiny", action="store_true", help="a model that shows only that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
