"""`finetuning_type: qlora`: a run on a base in few bits learns, goes on exactly, and its adapter is merged into the whole base."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tunesmith.export.command import export_command
from tunesmith.generate.chat import chat_command
from tunesmith.log import OptionError

Train = Callable[..., Path]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def test_a_run(train: Train, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"finetuning_type": "qlora", "max_steps": 6, "save_steps": 3, "lr_scheduler_type": "constant"}
    folder = train("whole", **options)
    assert "14 linear layers are held in 4 bits" in capsys.readouterr().err
    assert "quantization_bit: 4" in (folder / "config.yaml").read_text()
    assert losses(folder)[-1] < losses(folder)[0] - 0.1
    plain = train("plain", **options | {"finetuning_type": "lora", "max_steps": 1})
    assert losses(plain)[0] != losses(folder)[0], "the base was not quantized"

    parted = train("parted", **options | {"max_steps": 3})
    train("parted", **options)
    one, other = (load_file(each / "adapter_model.safetensors") for each in (folder, parted))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    capsys.readouterr()
    assert chat_command([str(folder), "--prompt", "the cat", "--max_new_tokens", "3"]) == 0
    assert "linear layers are held in 4 bits" in capsys.readouterr().err
    assert export_command([str(folder), "--export_dir", str(tmp_path / "merged")]) == 0
    assert "trained on 4 bits, merged into the base's whole weights" in capsys.readouterr().err
    base = load_file(tiny_model / "model.safetensors")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    low = [one[f"base_model.model.{name.removesuffix('.weight')}.lora_{kind}.weight"] for kind in "AB"]
    torch.testing.assert_close(merged[name], base[name] + 2 * low[1] @ low[0])
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def test_loftq_starts_nearer_and_fits_no_whole_base(train: Train, tmp_path: Path) -> None:
    options = {"finetuning_type": "qlora", "max_steps": 1, "learning_rate": 1e-9, "quantization_method": "hqq"}
    options["quantization_bit"] = 2
    first = {init: losses(train(init, lora_init=init, lora_rank=32, **options))[0] for init in ("kaiming", "loftq")}
    exact = losses(train("exact", max_steps=1))[0]
    assert abs(first["loftq"] - exact) < 0.2 * abs(first["kaiming"] - exact)
    with pytest.raises(OptionError, match="so it fits a base that is held so, and no whole one"):
        export_command([str(tmp_path / "loftq"), "--export_dir", str(tmp_path / "merged")])


@pytest.mark.parametrize(("method", "bits"), [("bnb", 4), ("bnb", 8), ("hqq", 3)])
def test_every_kind_computes_in_bf16_too(method: str, bits: int, train: Train) -> None:
    options = {"quantization_bit": bits, "quantization_method": method, "compute_type": "bf16", "max_steps": 1}
    assert 5 < losses(train("short", **options))[0] < 7
