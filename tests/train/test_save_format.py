"""`save_format: pytorch` decides in which files a run's weights are, and never leaves weights of two formats."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

Train = Callable[..., Path]


def weights_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in (".bin", ".safetensors")}


def test_the_newest_weights_are_the_only_ones(train: Train) -> None:
    options = {"finetuning_type": "full", "save_steps": 1, "lr_scheduler_type": "constant"}
    folder = train("out", save_format="pytorch", max_steps=2, **options)
    assert weights_of(folder) == {"pytorch_model.bin"}
    exact = {"optimizer.safetensors", "random.safetensors", "trained.safetensors"}
    assert weights_of(folder / "checkpoint-1") == {"pytorch_model.bin", *exact}
    before = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    train("out", max_steps=3, **options)
    assert weights_of(folder) == {"model.safetensors"}
    train("out", save_format="pytorch", max_steps=4, **options)
    assert weights_of(folder) == {"pytorch_model.bin"}
    after = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    train("out", max_steps=1, overwrite_output_dir=True)
    assert weights_of(folder) == {"adapter_model.safetensors"}
