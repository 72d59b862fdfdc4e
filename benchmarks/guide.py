"""LLaMA-Factory beside tunesmith at the command that guides print, on a tiny model: the whole process, and its first step.

    python benchmarks/guide.py [--rounds 3] [--rows 100000] [--work FOLDER] [--ours-only] [--tiny]

Both sides are whole processes on the CPU, in turns, told what `examples/pasted_command.txt` says, with another model and
folders, and to log the first step too.  Every round prepares its rows anew.  Then tunesmith alone: how soon the first step
is done when rows are prepared and when they are there from before, for 100 rows and for many.  Knows the reference by its
command line and the log it writes.
"""

import argparse
import re
import statistics
import time
import warnings
from pathlib import Path

import prepare
import processes
import reference
import report
import sides
from reference import CACHE, REPOSITORY
from sides import OURS, Run

GUIDE = REPOSITORY / "examples" / "pasted_command.txt"
ROWS = REPOSITORY / "data" / "identity.json"
FEW = 100


def main() -> int:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries that make the model
    work: Path = arguments.work
    work.mkdir(parents=True)
    reference.write_rows(ROWS, work)
    reference.write_model(work / "model", work / "rows.json")
    options = guide() | {"model_name_or_path": work / "model", "dataset_dir": work, "dataset": "rows"}
    options |= {"logging_first_step": True} | ({"max_steps": 2} if arguments.tiny else {})
    print(report.heading(), flush=True)
    if not arguments.ours_only:
        print(both_sides(options, work, arguments.rounds) + "\n", flush=True)
    print(second_start(options | {"max_steps": 1}, work, arguments.rows, arguments.rounds))
    return 0


def guide() -> dict[str, object]:
    """The guide's options, as they are written there."""
    return dict(re.findall(r"^\s*--(\w+) (\S+)", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE))


def both_sides(options: dict[str, object], work: Path, rounds: int) -> str:
    """The whole command on both sides."""
    ours, theirs = [], []
    for number in range(rounds):
        for name, command, own, found in (
            ("reference", sides.theirs(), {"use_cpu": True}, theirs),
            ("ours", OURS, {"device": "cpu"}, ours),
        ):
            folder = work / f"round-{number}-{name}"  # each with a cache of its own
            folder.mkdir()
            found.append(sides.train(command, options | own, folder / "run"))
    return report.beside(
        {
            "first step done after, s": (_firsts(ours), _firsts(theirs)),
            **processes.compared([run.cost for run in ours], [run.cost for run in theirs]),
        }
    )


def second_start(options: dict[str, object], work: Path, many: int, rounds: int) -> str:
    """Seconds to the end of the first step, rows prepared by the run and then by an earlier one."""
    firsts: dict[int, float] = {}
    seconds: dict[int, list[float]] = {FEW: [], many: []}
    for count in seconds:
        folder = work / f"rows-{count}"
        folder.mkdir()
        prepare.write_rows(ROWS, folder, count)
        firsts[count] = _start(options, folder, "first")
    for number in range(rounds):
        for count, found in seconds.items():
            found.append(_start(options, work / f"rows-{count}", f"again-{number}"))
    return report.table(
        ("rows", "first step done after, s: rows prepared", "rows there from before"),
        (
            (f"{count:,}", report.figure(firsts[count]), report.figure(statistics.median(found)))
            for count, found in seconds.items()
        ),
    )


def _start(options: dict[str, object], folder: Path, name: str) -> float:
    return sides.train(OURS, options | {"dataset_dir": folder, "device": "cpu"}, folder / name).logged[0]


def _firsts(runs: list[Run]) -> list[float]:
    return [run.logged[0] for run in runs]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000, help="how many are many")
    parser.add_argument("--work", type=Path, default=CACHE / f"guide-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--ours-only", action="store_true", help="leave the reference out")
    parser.add_argument("--tiny", action="store_true", help="two steps, to see that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
