"""How the cost of training with tunesmith grows: with rows' length, the vocabulary, what is trained, LoRA's rank, and how a
step is divided; and what a step costs beside its arithmetic.

    python benchmarks/growth.py [--only length vocabulary trained rank division overhead] [--steps 3] [--work FOLDER] [--tiny]

A model of about 30 million weights, LoRA on all layers in bf16 unless a table says otherwise.  Each line is a whole
process on the CPU; tokens are counted without padding, after the first step.  The last table is of a model with almost no
arithmetic, trained on one short row a step: time between steps, all of it.
"""

import argparse
import json
import random
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import report
import sides
import train
from reference import CACHE
from sides import OURS, Run

SHAPE = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 6}
LORA: dict[str, object] = {"finetuning_type": "lora", "lora_rank": 8, "lora_target": "all"}
OPTIONS = {
    "stage": "sft",
    "template": "empty",
    "dataset": "rows",
    "compute_type": "bf16",
    "learning_rate": 1e-4,
    "disable_shuffling": True,
    "save_strategy": "no",
    "report_to": "none",
    "device": "cpu",
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Setting:
    """One line of a table.  `trained`: share of a row's tokens that are."""

    name: str
    row_tokens: int = 256
    batch_size: int = 4
    step_tokens: int = 4096
    vocabulary: int = 32_000
    trained: float = 0.5
    tuning: tuple[tuple[str, object], ...] = tuple(LORA.items())

    @property
    def accumulation(self) -> int:
        return max(1, self.step_tokens // (self.row_tokens * self.batch_size))


def lora(rank: int) -> tuple[tuple[str, object], ...]:
    return tuple((LORA | {"lora_rank": rank}).items())


TABLES = {
    "length": [
        Setting(f"rows of {tokens:,} tokens, one at a time", tokens, 1, 8192)
        for tokens in (128, 256, 512, 1024, 2048, 4096, 8192)
    ],
    "vocabulary": [Setting(f"a vocabulary of {words:,}", vocabulary=words) for words in (8_000, 32_000, 128_000)],
    "trained": [Setting(f"{share:.0%} of the tokens trained", trained=share) for share in (0.1, 0.5, 0.9)],
    "rank": [
        *(Setting(f"LoRA of rank {rank}", tuning=lora(rank)) for rank in (1, 8, 64)),
        Setting("all weights", tuning=(("finetuning_type", "full"),)),
    ],
    "division": [Setting(f"{size} x {16 // size} rows a step", batch_size=size) for size in (1, 4, 16)],
}
OVERHEAD_STEPS = 300


def main() -> int:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries that make the model
    arguments.work.mkdir(parents=True)
    print(report.heading(), flush=True)
    for name in arguments.only:
        rows = overhead(arguments) if name == "overhead" else growth(arguments, TABLES[name])
        for number, row in enumerate(rows):
            print(row if number else f"{_head(name)}\n{row}", flush=True)
        print()
    return 0


def growth(arguments: argparse.Namespace, settings: list[Setting]) -> Iterator[str]:
    """A table's lines, each measured when it is asked for."""
    for setting in settings[:1] if arguments.tiny else settings:
        folder = arguments.work / str(len(list(arguments.work.iterdir())))
        run = measured(setting, folder, arguments.steps, train.TINY if arguments.tiny else SHAPE)
        tokens = train.tokens_by_step(run)
        rate, peak = train.rate(run, tokens, warm=1), run.cost.mebibytes
        yield f"| {setting.name} | {tokens[0]:,} | {report.figure(rate)} | {report.figure(peak)} |"


def measured(setting: Setting, work: Path, steps: int, shape: dict[str, int]) -> Run:
    """Train the setting in a fresh folder."""
    work.mkdir()
    rows = setting.accumulation * setting.batch_size * steps
    write_rows(work, rows, setting.row_tokens, setting.trained)
    write_model(work, shape, setting.vocabulary)
    options = OPTIONS | dict(setting.tuning)
    options |= {
        "model_name_or_path": work / "model",
        "dataset_dir": work,
        "cutoff_len": 2 * setting.row_tokens,
        "per_device_train_batch_size": setting.batch_size,
        "gradient_accumulation_steps": setting.accumulation,
        "max_steps": steps,
        "logging_steps": 1,
    }
    return sides.train(OURS, options, work / "run")


def overhead(arguments: argparse.Namespace) -> Iterator[str]:
    """Time of a step with one short row of a model with almost no arithmetic, nothing logged."""
    steps = 20 if arguments.tiny else OVERHEAD_STEPS
    for name, tuning in (("LoRA", LORA), ("all weights", {"finetuning_type": "full"})):
        work = arguments.work / f"overhead-{len(list(arguments.work.iterdir()))}"
        work.mkdir()
        write_rows(work, 64, 32, 0.5)
        write_model(work, train.TINY, 2_000)
        options = OPTIONS | tuning | {"model_name_or_path": work / "model", "dataset_dir": work, "max_steps": steps}
        options |= {"per_device_train_batch_size": 1, "compute_type": "fp32", "logging_steps": steps}
        run = sides.train(OURS, options, work / "run")
        milliseconds = run.results("train")["train_runtime"] / steps * 1000
        yield f"| {name}, {steps} steps | {milliseconds:.1f} | {report.figure(run.cost.mebibytes)} |"


def write_rows(work: Path, count: int, row_tokens: int, trained: float) -> None:
    """Rows of random short words, each of which is a token, about so many in a row."""
    draw = random.Random(0)
    answer = min(row_tokens - 1, round(trained * row_tokens))
    rows = [
        {"instruction": _words(draw, row_tokens - answer), "input": "", "output": _words(draw, answer)}
        for _ in range(count)
    ]
    (work / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (work / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")


def _words(draw: random.Random, count: int) -> str:
    """The tokenizer makes one token of each."""
    return " ".join(draw.choices(("sun", "moon", "sea", "wind", "stone", "tree", "bird", "road"), k=count))


def write_model(work: Path, shape: dict[str, int], vocabulary: int) -> None:
    """A random model in bf16 with a tokenizer made from the rows, which knows their words whole."""
    case = replace(train.CASES["lora"], shape=shape, vocabulary=vocabulary)
    train.write_model(work / "model", work / "rows.json", case, words=1000)


def _head(name: str) -> str:
    heads = {"overhead": ("a model of 2 layers of width 32, one row a step", "ms a step", "peak MiB")}
    return report.table(heads.get(name, ("", "tokens a step", "tokens/s", "peak MiB")), [])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*TABLES, "overhead"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="tables to make")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--work", type=Path, default=CACHE / f"growth-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--tiny", action="store_true", help="one line of each, to see that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
