"""Makes adapters with plain peft, as other programs do, and compares tensors.  Knows nothing of tunesmith."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM


def adapt(base: Path, folder: Path, seed: int = 1, **options: object) -> Path:
    """Save an adapter that changes everything it can."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned: PeftModel = get_peft_model(
        model, LoraConfig(**{"r": 4, "lora_alpha": 7, "task_type": "CAUSAL_LM"} | options)
    )
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    return folder


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name
