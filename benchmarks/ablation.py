"""What each part of tunesmith's speed is worth: training with all of them, without each one, and without any.

    python benchmarks/ablation.py [--case lora] [--steps 4] [--accumulation 4] [--rounds 1] [--work FOLDER] [--tiny]

Each way is a whole process on the CPU with the same rows, order and model; rounds go through all ways in turns.  Tokens are
counted without padding, after the first two steps.  A row for each name that `disable_speedups` knows, so that a new one
gets its row by itself; ratios are to the first row of the same round.  Knows nothing of how a part works.
"""

import argparse
import statistics
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import get_args

import report
import sides
import train
from reference import CACHE
from sides import OURS, Run

from tunesmith.config.model import ModelConfig

ALL = "everything on"


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
    runs: dict[str, list[Run]] = {way: [] for way in shown}
    for number in range(arguments.rounds):
        for place, (way, options) in enumerate(shown.items()):
            runs[way].append(sides.train(OURS, shared | options, arguments.work / f"{number}-{place}"))
            print(f"{way}: {_rate(runs[way][-1]):.1f} tokens/s", flush=True)
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


def _row(way: str, runs: dict[str, list[Run]]) -> list[str]:
    cells = [way]
    for measure in (_rate, _peak):
        found, whole = ([measure(run) for run in runs[each]] for each in (way, ALL))
        cells += [report.figure(statistics.median(found)), f"{report.ratio(found, whole):.2f}"]
    return cells


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
