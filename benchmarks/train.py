"""LLaMA-Factory beside tunesmith at training: tokens a second after the first two steps, and peak memory.

    python benchmarks/train.py [--case lora] [--steps 5] [--accumulation 8] [--rounds 1] [--work FOLDER] [--ours-only] [-- OPTIONS OF OURS]

Both sides are whole processes on the CPU, one after the other, with the same rows, template, order and model.  Tokens are
counted without padding, and are the same on both sides.  Knows the reference by its command line and the log it writes;
knows nothing of how either side works.
"""

import argparse
import json
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import processes
import report
import sides
from reference import CACHE, REPOSITORY, write_tokenizer
from sides import OURS, Run

DEMO = REPOSITORY.parent / "shared" / "data" / "demo" / "alpaca_en_demo.json"
ROWS = DEMO if DEMO.is_file() else REPOSITORY / "data" / "small_talk.json"
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
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
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


def main() -> int:
    arguments = _arguments()
    case = CASES[arguments.case]
    if arguments.tiny:
        case = replace(case, shape=TINY, vocabulary=20_000)
    warnings.simplefilter("ignore")  # of the libraries that make the model
    print(report.heading(), flush=True)
    work: Path = arguments.work
    shared = start(work, case) | {"max_steps": arguments.steps, "gradient_accumulation_steps": arguments.accumulation}
    reference = None if arguments.ours_only else sides.theirs()
    ours, theirs = [], []
    for number in range(arguments.rounds):
        ours.append(sides.train(OURS, shared | case.ours, work / f"ours-{number}", arguments.more))
        tokens = tokens_by_step(ours[-1])
        print(_told("ours", ours[-1], tokens), flush=True)
        if reference is not None:
            theirs.append(
                sides.train(reference, shared | case.theirs | {"use_cpu": True}, work / f"reference-{number}")
            )
            print(_told("reference", theirs[-1], tokens), flush=True)
    if theirs:
        print(
            f"\n{arguments.case}, {arguments.steps} steps of 2 x {arguments.accumulation} rows, rounds in turns: {arguments.rounds}\n"
        )
        measured: dict[str, report.Both] = {
            "tokens/s": ([rate(run, tokens) for run in ours], [rate(run, tokens) for run in theirs]),
        }
        measured |= processes.compared([run.cost for run in ours], [run.cost for run in theirs])
        print(report.beside(measured))
    return 0


def start(work: Path, case: Case) -> dict[str, object]:
    """Write rows and model into `work`; returns what both sides are told."""
    work.mkdir(parents=True)
    (work / "rows.json").write_text(ROWS.read_text(encoding="utf-8"), encoding="utf-8")
    (work / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")
    write_model(work / "model", work / "rows.json", case)
    return OPTIONS | case.shared | {"model_name_or_path": work / "model", "dataset_dir": work}


def write_model(folder: Path, rows: Path, case: Case, words: int = 16_384) -> None:
    """A random model of the case's shape in bf16, or fp32 where that is trained, with a tokenizer made from the rows."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    write_tokenizer(folder, rows, words)
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


def tokens_by_step(run: Run) -> list[int]:
    """Tokens seen after each step of a run of ours."""
    return [int(row["total_tokens"]) for row in run.rows() if "loss" in row]


def rate(run: Run, tokens: list[int], warm: int = WARM) -> float:
    """Tokens a second behind the first `warm` steps, without padding.  `tokens`: those seen after each step."""
    return (tokens[-1] - tokens[warm - 1]) / (run.logged[len(tokens) - 1] - run.logged[warm - 1])


def _told(side: str, run: Run, tokens: list[int]) -> str:
    losses = " ".join(f"{loss:.4f}" for loss in run.losses)
    cost = run.cost
    return f"{side}: {rate(run, tokens):.1f} tokens/s, {cost.seconds:.1f} s, {cost.mebibytes:.0f} MiB, losses {losses}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), default="lora")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--accumulation", type=int, default=8, help="micro-batches of a step")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=CACHE / f"train-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--tiny", action="store_true", help="a model that shows only that everything runs")
    parser.add_argument("--ours-only", action="store_true", help="leave the reference out")
    parser.add_argument("more", nargs="*", help="more options of ours, behind --")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
