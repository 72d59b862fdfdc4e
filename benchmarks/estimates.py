"""What `tunesmith estimate` says of a run beside what the run takes: steps, the most memory of the process, time.

    python benchmarks/estimates.py [--models tiny small middle] [--methods full freeze lora qlora] [--precisions fp32 bf16]
        [--losses cross_entropy] [--steps 4] [--row-tokens 256] [--rows 8] [--work FOLDER] [--tiny]

Random models of three sizes on the CPU, each run a whole process of which the system says how much it held at the most.
The estimate is made by a process of its own, from `config.json` and rows alone, before any weight is read.  With `--tiny`
one line, to see that everything runs.
"""

import argparse
import json
import os
import subprocess
import time
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import growth
import report
import sides
from processes import flags
from reference import CACHE
from sides import OURS, Run

SIZES: dict[str, tuple[dict[str, int], int]] = {
    "tiny": ({"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}, 2_000),
    "small": ({"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 4}, 8_000),
    "middle": (
        {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 12, "num_attention_heads": 10},
        16_000,
    ),
}
"""Name -> shape and vocabulary: 0.3, 6 and 84 million weights."""

METHODS = ("full", "freeze", "lora", "qlora")
HEAD = (
    "model",
    "method",
    "precision",
    "loss",
    "steps",
    "memory, estimate",
    "fact",
    "ratio",
    "seconds, estimate",
    "fact",
)


def main() -> int:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries that make the model
    arguments.work.mkdir(parents=True)
    print(report.heading(), flush=True)
    print(report.table(HEAD, []), flush=True)
    worst = 0.0
    for cells, part in lines(arguments):
        print(f"| {' | '.join(cells)} |", flush=True)
        worst = max(worst, part, key=abs)
    print(f"\nThe estimate of memory that is furthest from the fact: {worst:+.1%}")
    return 0


def lines(arguments: argparse.Namespace) -> Iterator[tuple[list[str], float]]:
    """A row of the table for each run, and how far its memory lies from the estimate."""
    for size in arguments.models:
        folder = arguments.work / size
        folder.mkdir()
        growth.write_rows(folder, arguments.rows * arguments.steps, arguments.row_tokens, 0.5)
        growth.write_model(folder, *SIZES[size])
        for method, precision, loss in product(arguments.methods, arguments.precisions, arguments.losses):
            options = growth.OPTIONS | {
                "model_name_or_path": folder / "model", "dataset_dir": folder, "finetuning_type": method,
                "per_device_train_batch_size": arguments.rows, "max_steps": arguments.steps, "loss": loss,
                "cutoff_len": 2 * arguments.row_tokens, "compute_type": precision,
                "gradient_checkpointing": arguments.gradient_checkpointing,
            }  # fmt: skip
            said = estimated(options, folder)
            run = sides.train(OURS, options, folder / f"{method}-{precision}-{loss}")
            yield _cells(size, method, precision, loss, said, run)


def estimated(options: dict[str, object], work: Path) -> dict[str, Any]:
    """What the command says, before the run."""
    done = subprocess.run(
        [*OURS, "estimate", *flags(options), "--json"],
        env={**os.environ, **sides.environment(work)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    (found,) = json.loads(done.stdout)
    return dict(found)


def _cells(
    size: str, method: str, precision: str, loss: str, said: dict[str, Any], run: Run
) -> tuple[list[str], float]:
    fact = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))["fact"]
    if fact["steps"] != said["steps"]:
        raise SystemExit(f"{run.folder}: {fact['steps']} steps, and {said['steps']} were estimated")
    times = said["seconds"]["total"] if said["seconds"] else None
    foretold = f"{times['likely']:.1f} ({times['low']:.1f} to {times['high']:.1f})" if times else "not known"
    memory = f"{said['peak_bytes'] / 2**20:,.0f} MiB"
    part = said["peak_bytes"] / fact["peak_bytes"] - 1
    shown = [size, method, precision, loss, str(fact["steps"]), memory, f"{fact['peak_bytes'] / 2**20:,.0f} MiB"]
    return [*shown, f"{1 + part:.3f}", foretold, f"{fact['seconds']:.1f}"], part


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "pure_bf16"), default=["fp32", "bf16"])
    parser.add_argument("--losses", nargs="+", default=["cross_entropy"])
    parser.add_argument("--gradient-checkpointing", default="false")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--row-tokens", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8, help="in a micro-batch")
    parser.add_argument("--work", type=Path, default=CACHE / f"estimates-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--tiny", action="store_true", help="one line, to see that everything runs")
    found = parser.parse_args()
    if found.tiny:
        found.models, found.methods, found.precisions = ["tiny"], ["lora"], ["fp32"]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
