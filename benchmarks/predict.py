"""LLaMA-Factory beside tunesmith at answering rows (`do_predict`): answers a second, memory.

    python benchmarks/predict.py [--answers 64] [--tokens 64] [--rounds 1] [--work FOLDER] [--ours-only] [--tiny]

The model has Qwen2-0.5B's shape and random bf16 weights, so that answers are noise of `--tokens` tokens each; both sides
take the likeliest token, with the same limit of 8 rows of evaluation a device, of which each makes what it does.  Both are
whole processes on the CPU, in turns.  Speed is told by each side's own `predict_runtime`, without loading but with scores,
and for the whole process.  How many answers are the same is printed: rounding decides among tokens of noise.  Knows the
reference by its command line and the files it writes.
"""

import argparse
import json
import subprocess
import time
import warnings
from dataclasses import replace
from pathlib import Path

import prepare
import report
import sides
import train
from reference import CACHE, install_reference
from sides import OURS, Run

OPTIONS = {
    "stage": "sft",
    "do_train": False,
    "do_predict": True,
    "predict_with_generate": True,
    "finetuning_type": "lora",
    "template": "qwen",
    "cutoff_len": 1024,
    "eval_dataset": "rows",
    "per_device_eval_batch_size": 8,
    "do_sample": False,
    "preprocessing_num_workers": 1,
    "report_to": "none",
}
"""What both are told, under names that both know."""

SCORES = ("jieba", "nltk", "rouge-chinese")
"""Packages without which the reference does not answer rows."""


def main() -> int:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries that make the model
    case, work = train.CASES["lora"], arguments.work
    if arguments.tiny:
        case = replace(case, shape=train.TINY, vocabulary=20_000)
    work.mkdir(parents=True)
    prepare.write_rows(train.ROWS, work, arguments.answers)
    train.write_model(work / "model", work / "rows.json", case)
    options = OPTIONS | {"model_name_or_path": work / "model", "dataset_dir": work, "max_new_tokens": arguments.tokens}
    if not arguments.ours_only:
        install_scores()
    print(report.heading(), flush=True)
    ours, theirs = [], []
    for number in range(arguments.rounds):
        ours.append(sides.train(OURS, options | case.ours, work / f"ours-{number}"))
        print(_told("ours", ours[-1]), flush=True)
        if not arguments.ours_only:
            output = work / f"reference-{number}"
            theirs.append(sides.train(sides.theirs(), options | case.theirs | {"use_cpu": True}, output))
            print(_told("reference", theirs[-1]), flush=True)
    if theirs:
        pairs = list(zip(said(ours[0]), said(theirs[0]), strict=True))
        same = sum(mine == other for mine, other in pairs)
        print(
            f"\n{len(pairs)} answers of up to {arguments.tokens} tokens, {same} the same; rounds: {arguments.rounds}\n"
        )
        measured: dict[str, report.Both] = {
            "answers/s": (
                [len(pairs) / _seconds(run) for run in ours],
                [len(pairs) / _seconds(run) for run in theirs],
            ),
            "whole process, s": ([run.cost.seconds for run in ours], [run.cost.seconds for run in theirs]),
            "peak memory, MiB": ([run.cost.mebibytes for run in ours], [run.cost.mebibytes for run in theirs]),
        }
        print(report.beside(measured))
    return 0


def install_scores() -> None:
    """Bring what the reference's scores need into its environment."""
    python = install_reference() / "bin" / "python"
    there = subprocess.run([str(python), "-c", "import jieba, nltk, rouge_chinese"], capture_output=True, check=False)
    if there.returncode:
        subprocess.run([str(python), "-m", "pip", "--quiet", "install", *SCORES], check=True)


def said(run: Run) -> list[str]:
    """Its answers, in the rows' order."""
    lines = (run.folder / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["predict"] for line in lines]


def _seconds(run: Run) -> float:
    return run.results("predict")["predict_runtime"]


def _told(side: str, run: Run) -> str:
    answers, cost = len(said(run)), run.cost
    return (
        f"{side}: {answers} answers, {answers / _seconds(run):.2f} a second in {_seconds(run):.1f} s; whole process "
        f"{cost.seconds:.1f} s, {cost.mebibytes:.0f} MiB"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=CACHE / f"predict-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--ours-only", action="store_true", help="leave the reference out")
    parser.add_argument("--tiny", action="store_true", help="a model that shows only that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
