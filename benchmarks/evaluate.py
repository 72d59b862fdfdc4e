"""LLaMA-Factory beside tunesmith at the loss on rows that are not trained: rows and tokens a second, memory.

    python benchmarks/evaluate.py [--rows 200] [--rounds 1] [--work FOLDER] [--ours-only] [--tiny]

The model has Qwen2-0.5B's shape and random bf16 weights.  Both sides are whole processes on the CPU, in turns, that only
evaluate, 8 rows at a time.  Speed is told by each side's own `eval_runtime`, without loading, and for the whole process;
tokens are counted without padding.  Losses are printed, not compared: one side takes the mean over tokens, the other over
batches.  Knows the reference by its command line and the results it writes.
"""

import argparse
import re
import time
import warnings
from dataclasses import replace
from pathlib import Path

import prepare
import processes
import report
import sides
import train
from reference import CACHE
from sides import OURS, Run

OPTIONS = {
    "stage": "sft",
    "do_train": False,
    "do_eval": True,
    "finetuning_type": "lora",
    "template": "qwen",
    "cutoff_len": 1024,
    "eval_dataset": "rows",
    "per_device_eval_batch_size": 8,
    "preprocessing_num_workers": 1,
    "report_to": "none",
}
"""What both are told, under names that both know."""


def main() -> int:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries that make the model
    case, work = train.CASES["lora"], arguments.work
    if arguments.tiny:
        case = replace(case, shape=train.TINY, vocabulary=20_000)
    work.mkdir(parents=True)
    prepare.write_rows(train.ROWS, work, arguments.rows)
    train.write_model(work / "model", work / "rows.json", case)
    options = OPTIONS | {"model_name_or_path": work / "model", "dataset_dir": work}
    tokens = count_tokens(options, work)
    print(report.heading(), flush=True)
    ours, theirs = [], []
    for number in range(arguments.rounds):
        ours.append(sides.train(OURS, options | case.ours, work / f"ours-{number}"))
        print(_told("ours", ours[-1], tokens), flush=True)
        if not arguments.ours_only:
            theirs.append(
                sides.train(sides.theirs(), options | case.theirs | {"use_cpu": True}, work / f"reference-{number}")
            )
            print(_told("reference", theirs[-1], tokens), flush=True)
    if theirs:
        print(f"\nloss of {arguments.rows:,} rows, {tokens:,} tokens, rounds: {arguments.rounds}\n")
        measured: dict[str, report.Both] = {
            "rows/s": (
                [arguments.rows / _seconds(run) for run in ours],
                [arguments.rows / _seconds(run) for run in theirs],
            ),
            "tokens/s": ([tokens / _seconds(run) for run in ours], [tokens / _seconds(run) for run in theirs]),
        }
        measured |= processes.compared([run.cost for run in ours], [run.cost for run in theirs])
        print(report.beside(measured))
    return 0


def count_tokens(options: dict[str, object], work: Path) -> int:
    """Tokens of all rows without padding, as tunesmith tells them when it only reads them."""
    only_read = {name: value for name, value in options.items() if name != "eval_dataset"}
    only_read |= {"dataset": "rows", "do_eval": False}
    found = re.search(r"^tokens +([\d,]+) in", sides.train(OURS, only_read, work / "read").said(), flags=re.MULTILINE)
    assert found, "a run tells how many tokens its rows have"
    return int(found[1].replace(",", ""))


def _seconds(run: Run) -> float:
    return run.results("eval")["eval_runtime"]


def _told(side: str, run: Run, tokens: int) -> str:
    loss, cost = run.results("eval")["eval_loss"], run.cost
    return (
        f"{side}: loss {loss:.4f}, {tokens / _seconds(run):.1f} tokens/s in {_seconds(run):.1f} s; whole process "
        f"{cost.seconds:.1f} s, {cost.mebibytes:.0f} MiB"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=CACHE / f"evaluate-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--ours-only", action="store_true", help="leave the reference out")
    parser.add_argument("--tiny", action="store_true", help="a model that shows only that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
