"""LLaMA-Factory beside tunesmith at exporting a merged model: wall time, memory, and whether the tensors are equal.

    python benchmarks/export.py [--rounds 3] [--work FOLDER]

The model has Qwen2-0.5B's shape, random bf16 weights and one weight for embeddings and head; the adapter is LoRA of rank 8
on all linear layers.  Both sides are whole processes on the CPU, one after the other, in turns; the page cache is warm.
Exit code 1 when a tensor differs.  Knows the reference by its command line; knows not how either side works.
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

import processes
import report
from processes import THREADS, Cost, flags
from reference import CACHE, REPOSITORY, install_reference, write_tokenizer

SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def main() -> int:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries that make the model
    print(report.heading(), flush=True)
    reference, work = install_reference(), arguments.work
    work.mkdir(parents=True)
    write_model(work / "model")
    write_adapter(work / "model", work / "adapter")
    options = {
        "model_name_or_path": work / "model",
        "adapter_name_or_path": work / "adapter",
        "template": "qwen",
        "export_size": 5,
        "export_device": "cpu",
    }
    commands = {
        "reference": [str(reference / "bin" / "llamafactory-cli"), "export"],
        "ours": [sys.executable, "-m", "tunesmith", "export"],
    }
    costs: dict[str, list[Cost]] = {"reference": [], "ours": []}
    for number in range(arguments.rounds):
        for name, command in commands.items():
            costs[name].append(run(command, options, work / f"{name}-{number}"))
    print(f"exporting a merged model, rounds: {arguments.rounds}\n")
    print(report.beside(processes.compared(costs["ours"], costs["reference"])) + "\n")
    return compare(work / "ours-0", work / "reference-0")


def write_model(folder: Path) -> None:
    """A random model in bf16, with a small tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    rows = [{"instruction": "Who are you?", "output": "A small model."}]
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    write_tokenizer(folder, folder / "rows.json", 300)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    Qwen2ForCausalLM(Qwen2Config(**SHAPE, dtype="bfloat16")).save_pretrained(folder)


def write_adapter(model: Path, folder: Path) -> None:
    """LoRA on all linear layers, every weight of it random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16), lora)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02)
    tuned.save_pretrained(folder)


def run(command: list[str], options: dict[str, object], output: Path) -> Cost:
    """Export once, as a whole process, once what was written before is on the disk."""
    os.sync()
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": THREADS, "PYTHONPATH": str(REPOSITORY)}
    return processes.run([*command, *flags(options | {"export_dir": output})], Path(f"{output}.log"), environment)


def compare(ours: Path, theirs: Path) -> int:
    """Print whether all tensors are the same bits; 0 when they are."""
    import torch
    from safetensors import safe_open

    with (
        safe_open(ours / "model.safetensors", framework="pt") as own,
        safe_open(theirs / "model.safetensors", framework="pt") as other,
    ):
        names = set(own.keys())
        if names != set(other.keys()):
            print(f"FAILED: tensors of one side only: {sorted(names ^ set(other.keys()))[:3]}")
            return 1
        different = [name for name in sorted(names) if not torch.equal(own.get_tensor(name), other.get_tensor(name))]
        for name in different[:3]:
            farthest = (own.get_tensor(name).float() - other.get_tensor(name).float()).abs().max()
            print(f"{name} differs by up to {farthest:.1e}")
    print(f"{len(names) - len(different)} of {len(names)} tensors are equal bit for bit")
    return 1 if different else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=CACHE / f"export-{time.strftime('%Y%m%d-%H%M%S')}")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
