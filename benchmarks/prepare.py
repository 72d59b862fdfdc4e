"""LLaMA-Factory beside tunesmith at preparing rows: the same data, tokenizer, template and workers; wall time and memory.

    python benchmarks/prepare.py [--rows 100000] [--data FOLDER] [--tokenizer FOLDER] [--work FOLDER]

Makes rows out of `alpaca_en_demo.json` by seeded mutation.  Both sides are whole processes that prepare all rows with
two workers and then train one step of a tiny model; the peak is the sum of what all their processes hold for themselves.
Skipped with a sentence where the data is absent.  Knows the reference by its command line; knows not how either works.
"""

import argparse
import json
import random
import shutil
import sys
import time
import warnings
from pathlib import Path

import processes
import report
from processes import Cost, flags
from reference import CACHE, REPOSITORY, install_reference

SHARED = REPOSITORY.parent / "shared" / "data"
WORKERS = 2
OPTIONS = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 1,
    "lora_target": "q_proj",
    "template": "qwen",
    "cutoff_len": 1024,
    "dataset": "rows",
    "per_device_train_batch_size": 1,
    "max_steps": 1,
    "preprocessing_num_workers": WORKERS,
    "report_to": "none",
}
"""What both are told, under names that both know."""


def main() -> int:
    arguments = _arguments()
    source: Path = arguments.data / "alpaca_en_demo.json"
    if not source.is_file() or not arguments.tokenizer.is_dir():
        print(f"skipped: {source} or {arguments.tokenizer} is not there")
        return 0
    warnings.simplefilter("ignore")  # of the libraries that make the model
    print(report.heading(), flush=True)
    reference, work = install_reference(), arguments.work
    work.mkdir(parents=True)
    write_rows(source, work, arguments.rows)
    write_model(work / "model", arguments.tokenizer)
    shared = OPTIONS | {"model_name_or_path": work / "model", "dataset_dir": work}
    theirs = run([str(reference / "bin" / "llamafactory-cli"), "train"], shared | {"use_cpu": True}, work, "reference")
    ours = run(
        [sys.executable, "-m", "tunesmith", "train"], shared | {"device": "cpu", "compute_type": "fp32"}, work, "ours"
    )
    print(f"preparing {arguments.rows:,} rows with {WORKERS} workers, one run of each side\n")
    print(report.beside(processes.compared([ours], [theirs])))
    return 0


def write_rows(source: Path, work: Path, count: int) -> None:
    """Rows whose words are those of a row of the source, some of them exchanged for words of another one."""
    draw = random.Random(0)
    rows = json.loads(source.read_text(encoding="utf-8"))
    mutated = [_mutated(rows[number % len(rows)], draw.choice(rows), draw) for number in range(count)]
    (work / "rows.json").write_text(json.dumps(mutated, ensure_ascii=False), encoding="utf-8")
    (work / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")


def _mutated(row: dict[str, str], other: dict[str, str], draw: random.Random) -> dict[str, str]:
    found = {}
    for column in ("instruction", "input", "output"):
        words, strange = row[column].split(" "), other["output"].split(" ")
        found[column] = " ".join(draw.choice(strange) if draw.random() < 0.1 else word for word in words)
    return found


def write_model(folder: Path, tokenizer: Path) -> None:
    """A random model, as small as can be, with the tokenizer's files beside it."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(AutoTokenizer.from_pretrained(tokenizer)) + 256,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=1024,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for file in tokenizer.iterdir():
        if file.name != "config.json":
            shutil.copy(file, folder)


def run(command: list[str], options: dict[str, object], work: Path, name: str) -> Cost:
    """Run one side with caches of its own, so that everything is prepared."""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "TUNESMITH_CACHE": str(work / "cache"),
        "HF_DATASETS_CACHE": str(work / "cache"),
    }
    return processes.run([*command, *flags(options | {"output_dir": work / name})], work / f"{name}.log", environment)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--data", type=Path, default=SHARED / "demo", help="folder of alpaca_en_demo.json")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers" / "gpt-neox")
    parser.add_argument("--work", type=Path, default=CACHE / f"prepare-{time.strftime('%Y%m%d-%H%M%S')}")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
