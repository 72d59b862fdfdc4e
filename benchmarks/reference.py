"""LLaMA-Factory beside tunesmith: the same rows, template, seed, order and LoRA start; losses, wall time and memory.

    python benchmarks/reference.py [--data FILE] [--steps 10] [--rounds 3] [--work FOLDER]

Installs the reference into a virtual environment of its own under the user's cache, once.  Both sides are whole
processes on the CPU in fp32, one after the other, in turns.  Exit code 1 when a step's losses differ by over 1e-3.
Knows the reference by its command line and the files it writes; knows nothing of how either side works.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import processes
import report
from processes import THREADS, Cost, flags

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tunesmith"
REFERENCE = "llamafactory==0.9.5"
TORCH = "torch==2.13.0"
TOLERANCE = 1e-3
"""Most that the losses of one step may differ."""

LONGEST_ROW = 1000
"""Characters of the longest row used; a token is rarely less than one."""

OPTIONS = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "template": "qwen",
    "cutoff_len": 1024,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "max_grad_norm": 1.0,
    "optim": "adamw_torch",
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0,
    "lora_target": "all",
    "packing": False,
    "disable_shuffling": True,
    "preprocessing_num_workers": 1,
    "logging_steps": 1,
    "save_steps": 1000,
    "seed": 42,
    "report_to": "none",
}
"""What both are told, under names that both know.  The learning rate is high so that a wrong step shows in the next."""


@dataclass(frozen=True)
class Outcome:
    """One whole process and the loss of each step."""

    losses: list[float]
    cost: Cost


def main() -> int:
    arguments = _arguments()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # of the libraries that make the model
    print(report.heading(), flush=True)
    reference = install_reference()
    write_rows(arguments.data, work)
    write_model(work / "model", work / "rows.json")
    write_adapter(work / "model", work / "start")

    shared = OPTIONS | {
        "model_name_or_path": work / "model",
        "adapter_name_or_path": work / "start",
        "dataset": "rows",
        "dataset_dir": work,
        "max_steps": arguments.steps,
    }
    ours_command = [sys.executable, "-m", "tunesmith", "train"]
    theirs_command = [str(reference / "bin" / "llamafactory-cli"), "train"]
    ours, theirs = [], []
    for number in range(arguments.rounds):
        theirs.append(run(theirs_command, shared | {"use_cpu": True}, work / f"reference-{number}"))
        ours.append(run(ours_command, shared | {"device": "cpu", "compute_type": "fp32"}, work / f"ours-{number}"))
    difference = report_losses(ours[0].losses, theirs[0].losses)
    print(f"\nwhole processes, rounds in turns: {arguments.rounds}\n")
    print(report.beside(processes.compared([run.cost for run in ours], [run.cost for run in theirs])) + "\n")
    if len(ours[0].losses) != arguments.steps or len(theirs[0].losses) != arguments.steps:
        print(f"FAILED: {arguments.steps} steps were asked for")
        return 1
    print(
        f"largest difference {difference:.1e}, allowed {TOLERANCE:.0e}: {'ok' if difference <= TOLERANCE else 'FAILED'}"
    )
    return 0 if difference <= TOLERANCE else 1


def install_reference() -> Path:
    """The reference's virtual environment.  torchvision and torchaudio, which it asks for, want another torch than this
    one; an empty package stands in for the one it imports without need."""
    folder = CACHE / "reference-venv"
    if (folder / "ready").is_file():
        return folder
    print(f"installing {REFERENCE} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet"]
    subprocess.run([*pip, "install", REFERENCE, TORCH], check=True)
    subprocess.run([*pip, "uninstall", "--yes", "torchvision", "torchaudio"], check=True)
    packages = next((folder / "lib").glob("python3.*/site-packages"))
    (packages / "torchaudio").mkdir()
    (packages / "torchaudio" / "__init__.py").touch()
    (folder / "ready").write_text(f"{REFERENCE} {TORCH}\n")
    return folder


def write_rows(data: Path, work: Path) -> None:
    """Alpaca rows with placeholders filled, and the file that names them.  Long rows are left out: both sides shorten
    those, and not in the same places."""
    text = data.read_text(encoding="utf-8").replace("{{name}}", "Ada").replace("{{author}}", "the makers")
    rows = [row for row in json.loads(text) if len(json.dumps(row, ensure_ascii=False)) <= LONGEST_ROW]
    (work / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (work / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")


def write_tokenizer(folder: Path, rows: Path, words: int) -> None:
    """A byte-level BPE tokenizer of so many words, made from the rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    texts = [str(value) for row in json.loads(rows.read_text(encoding="utf-8")) for value in row.values()]
    rules = Qwen2Tokenizer().backend_tokenizer  # what some versions of transformers read in place of any others
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = rules.normalizer, rules.pre_tokenizer
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=["<|im_start|>"]
    ).save_pretrained(folder)


def write_model(folder: Path, rows: Path) -> None:
    """A random Qwen2-shaped model of about 2 million parameters, with a tokenizer made from the rows."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    write_tokenizer(folder, rows, 4096)
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=4096,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
    ).save_pretrained(folder)


def write_adapter(model: Path, folder: Path) -> None:
    """The LoRA both sides go on from, so that neither draws its own first matrices."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    adapter = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), adapter).save_pretrained(folder)


def run(command: list[str], options: dict[str, object], output: Path) -> Outcome:
    """Train once in a fresh folder, as a whole process."""
    if output.exists():
        raise SystemExit(f"{output} exists; name another --work folder")
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": THREADS, "PYTHONPATH": str(REPOSITORY)}
    words = [*command, *flags(options | {"output_dir": output})]
    cost = processes.run(words, output.with_suffix(".log"), environment)
    rows = map(json.loads, (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines())
    return Outcome([row["loss"] for row in rows if "loss" in row], cost)


def report_losses(ours: list[float], theirs: list[float]) -> float:
    """Print both curves; returns the largest difference."""
    print("step   reference        ours   difference")
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=False), start=1):
        print(f"{step:4}  {other:10.6f}  {mine:10.6f}  {mine - other:+11.6f}")
    return max((abs(mine - other) for mine, other in zip(ours, theirs, strict=False)), default=float("inf"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY / "data" / "identity.json", help="alpaca rows")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=CACHE / f"reference-{time.strftime('%Y%m%d-%H%M%S')}")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
