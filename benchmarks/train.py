"""LLaMA-Factory beside tunesmith at training: tokens a second after the first two steps, and peak memory.

    python benchmarks/train.py [--case lora] [--steps 5] [--rounds 1] [--work FOLDER] [--ours-only] [-- OPTIONS OF OURS]

Both sides are whole processes on the CPU, one after the other, with the same rows, template, order and model.  Tokens are
counted without padding, and are the same on both sides.  Knows the reference by its command line and the log it writes;
knows nothing of how either side works.
"""

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import processes
from processes import flags
from reference import CACHE, REPOSITORY, install_reference, write_tokenizer

SHARED = REPOSITORY.parent / "shared" / "data"
WARM = 2
"""Steps that are not counted."""

OPTIONS = {
    "stage": "sft",
    "do_train": True,
    "template": "qwen",
    "cutoff_len": 1024,
    "dataset": "rows",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1e-4,
    "disable_shuffling": True,
    "preprocessing_num_workers": 1,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}
"""What both are told, under names that both know."""

LORA = {"finetuning_type": "lora", "lora_rank": 8, "lora_target": "all"}
SMALL = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
HUNDRED = {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 12, "num_attention_heads": 10}


@dataclass(frozen=True)
class Case:
    """One kind of work: the model's shape, and what both sides and each of them are told."""

    shape: dict[str, int]
    vocabulary: int
    shared: dict[str, object]
    ours: dict[str, object]
    theirs: dict[str, object]


BF16, FP32 = {"compute_type": "bf16"}, {"compute_type": "fp32"}
CASES = {
    "lora": Case(SMALL, 151_936, LORA, BF16, {"bf16": True}),
    "checkpointing": Case(SMALL, 151_936, LORA, BF16 | {"gradient_checkpointing": True}, {"bf16": True}),
    "full-fp32": Case(HUNDRED, 50_304, {"finetuning_type": "full"}, FP32, {}),
    "full-bf16": Case(HUNDRED, 50_304, {"finetuning_type": "full"}, BF16, {"bf16": True}),
}
"""The reference recomputes activations unless told otherwise, and is run as it is."""


@dataclass(frozen=True)
class Outcome:
    """`rate`: tokens a second, without padding; `seconds`: the whole process; `losses`: of each step."""

    rate: float
    seconds: float
    mebibytes: float
    losses: list[float]


def main() -> int:
    arguments = _arguments()
    source, case = SHARED / "demo" / "alpaca_en_demo.json", CASES[arguments.case]
    if not source.is_file():
        print(f"skipped: {source} is not there")
        return 0
    warnings.simplefilter("ignore")  # of the libraries that make the model
    work: Path = arguments.work
    work.mkdir(parents=True)
    (work / "rows.json").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (work / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")
    write_model(work / "model", work / "rows.json", case)
    shared = OPTIONS | case.shared
    shared |= {"model_name_or_path": work / "model", "dataset_dir": work, "max_steps": arguments.steps}
    reference = None if arguments.ours_only else install_reference() / "bin" / "llamafactory-cli"
    ours, theirs = [], []
    for number in range(arguments.rounds):
        command = [sys.executable, "-m", "tunesmith", "train"]
        ours.append(run(command, shared | case.ours, work / f"ours-{number}", arguments.more))
        tokens = tokens_by_step(work / f"ours-{number}")
        print(f"ours: {_told(ours[-1])}", flush=True)
        if reference is not None:
            options = shared | case.theirs | {"use_cpu": True}
            theirs.append(run([str(reference), "train"], options, work / f"reference-{number}", [], tokens))
            print(f"reference: {_told(theirs[-1])}", flush=True)
    if theirs:
        report(arguments.case, ours, theirs)
    return 0


def write_model(folder: Path, rows: Path, case: Case) -> None:
    """A random model of the case's shape in bf16, or fp32 where that is trained, with a tokenizer made from the rows."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    write_tokenizer(folder, rows, 16_384)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=case.vocabulary,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        **case.shape,
    )
    dtype = torch.float32 if case.ours == FP32 else torch.bfloat16
    Qwen2ForCausalLM(config).to(dtype).save_pretrained(folder)


def run(
    command: list[str], options: dict[str, object], output: Path, more: list[str], tokens: list[int] | None = None
) -> Outcome:
    """Train once.  `tokens`: those seen after each step, where the side's own log does not say them."""
    seen: list[float] = []
    log = output / "trainer_log.jsonl"

    def look(seconds: float) -> None:
        if log.is_file():
            lines = log.read_text(encoding="utf-8").count("\n")
            seen.extend([seconds] * (lines - len(seen)))

    environment = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(os.cpu_count()),
        "PYTHONPATH": str(REPOSITORY),
        "TUNESMITH_CACHE": str(output.parent / "cache"),
        "HF_DATASETS_CACHE": str(output.parent / "cache"),
    }
    words = [*command, *flags(options | {"output_dir": output}), *more]
    cost = processes.run(words, output.with_suffix(".log"), environment, look)
    tokens = tokens or tokens_by_step(output)
    steps = int(options["max_steps"])  # type: ignore[call-overload]
    rate = (tokens[steps - 1] - tokens[WARM - 1]) / (seen[steps - 1] - seen[WARM - 1])
    losses = [row["loss"] for row in _log(output) if "loss" in row]
    return Outcome(rate, cost.seconds, cost.mebibytes, losses)


def tokens_by_step(output: Path) -> list[int]:
    """Tokens seen after each step of a run of ours."""
    return [row["total_tokens"] for row in _log(output) if "loss" in row]


def report(case: str, ours: list[Outcome], theirs: list[Outcome]) -> None:
    """Print medians over the rounds, and the median of each round's own ratio."""
    print(f"\n{case}: {os.cpu_count()} cores, median of {len(ours)} rounds in turns")
    for name, unit in (("rate", "tokens/s"), ("seconds", "s"), ("mebibytes", "MiB")):
        pairs = [(getattr(other, name), getattr(mine, name)) for mine, other in zip(ours, theirs, strict=True)]
        reference, own = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(mine / other for other, mine in pairs)
        print(
            f"{name:10} reference {reference:8.1f} {unit:8}   ours {own:8.1f} {unit:8}   ours / reference {ratio:.2f}"
        )


def _log(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()]


def _told(outcome: Outcome) -> str:
    losses = " ".join(f"{loss:.4f}" for loss in outcome.losses)
    return f"{outcome.rate:.1f} tokens/s, {outcome.seconds:.1f} s, {outcome.mebibytes:.0f} MiB, losses {losses}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), default="lora")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=CACHE / f"train-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--ours-only", action="store_true", help="leave the reference out")
    parser.add_argument("more", nargs="*", help="more options of ours, behind --")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
