"""Merging from file to file: bit for bit what merging in memory gives, and refused where it must be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapted import adapt, same
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.config.model import ModelConfig
from tunesmith.export.command import export_command
from tunesmith.log import ModelError
from tunesmith.models.merging import in_memory, stream
from tunesmith.models.where import Source

Folders = Callable[[str], Path]

LINEAR = ["q_proj", "o_proj", "down_proj"]
KINDS: dict[str, tuple[str, dict]] = {
    "plain": ("qwen2", {"target_modules": LINEAR}),
    "rslora": ("llama", {"target_modules": LINEAR, "use_rslora": True}),
    "dora": ("qwen2", {"target_modules": LINEAR, "use_dora": True}),
    "patterns": (
        "mistral",
        {"target_modules": LINEAR, "rank_pattern": {"o_proj": 2}, "alpha_pattern": {r"layers.1.self_attn.q_proj": 3}},
    ),
    "gpt2": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "gpt2 dora": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "whole modules": ("apart", {"target_modules": LINEAR, "modules_to_save": ["lm_head", "norm"]}),
    "embeddings": ("apart", {"target_modules": ["embed_tokens", "q_proj", "lm_head"]}),
    "embeddings dora": ("apart", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "tied": ("qwen3_tied", {"target_modules": LINEAR}),
    "regular expression": ("qwen2", {"target_modules": r".*layers\.1\..*(up|gate)_proj"}),
}


@pytest.fixture
def base_of(folder_of: Folders, tmp_path: Path) -> Callable[..., Path]:
    """`base_of("qwen2", torch.bfloat16)`: that architecture in that type; `apart` says that its ends are two weights."""

    def build(name: str, dtype: torch.dtype = torch.bfloat16) -> Path:
        folder, place = folder_of("qwen2" if name == "apart" else name), tmp_path / f"base-{name}"
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        model.save_pretrained(place)
        for file in folder.glob("*token*"):
            (place / file.name).write_bytes(file.read_bytes())
        if name == "apart":
            config = json.loads((place / "config.json").read_text()) | {"tie_word_embeddings": False}
            (place / "config.json").write_text(json.dumps(config))
        return place

    return build


def export(*words: object) -> int:
    return export_command([str(word) for word in words])


def in_memory_tensors(base: Path, adapters: list[Path], folder: Path) -> dict[str, torch.Tensor]:
    """What tunesmith's own merge in memory, and saving, give."""
    folder.mkdir()
    sources = [Source(str(path), path) for path in adapters]
    cfg = ModelConfig(model_name_or_path=str(base))
    in_memory.write(Source(str(base), base), sources, cfg, folder, most_bytes=10**9, device=torch.device("cpu"))
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_streaming_gives_what_merging_in_memory_gives(
    kind: str, dtype: torch.dtype, base_of: Callable[..., Path], tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(stream, "PIECE_BYTES", 1000)
    name, options = KINDS[kind]
    base = base_of(name, dtype)
    adapter = adapt(base, tmp_path / "adapter", **options)
    assert export(base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "out") == 0
    assert "in memory" not in capsys.readouterr().err
    merged = load_file(tmp_path / "out" / "model.safetensors")
    same(merged, in_memory_tensors(base, [adapter], tmp_path / "held"))
    before = load_file(base / "model.safetensors")
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, before[name])}
    assert changed and all(merged[name].dtype == dtype for name in merged)


def test_several_adapters_are_merged_one_after_another_and_rounded_once(base_of, tmp_path: Path) -> None:
    base = base_of("qwen2")
    adapters = [
        adapt(base, tmp_path / "one", target_modules=LINEAR),
        adapt(base, tmp_path / "two", seed=2, target_modules=["q_proj", "v_proj"], use_dora=True),
        adapt(base, tmp_path / "three", seed=3, target_modules=["q_proj"], r=8),
    ]
    named = f"adapter_name_or_path={','.join(map(str, adapters))}"
    assert export(base, named, "--export_dir", tmp_path / "out") == 0
    same(load_file(tmp_path / "out" / "model.safetensors"), in_memory_tensors(base, adapters, tmp_path / "held"))


def test_what_is_beyond_streaming_is_merged_in_memory_and_said(base_of, tmp_path: Path, capsys) -> None:
    base = base_of("qwen2")
    adapter = adapt(base, tmp_path / "adapter", target_modules=LINEAR, lora_bias=False, bias="lora_only")
    assert export(base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "out") == 0
    assert "note: export: the model is merged in memory" in capsys.readouterr().err
    same(load_file(tmp_path / "out" / "model.safetensors"), in_memory_tensors(base, [adapter], tmp_path / "held"))
    AutoTokenizer.from_pretrained(tmp_path / "out")


def test_a_tied_end_is_never_parted(base_of, tmp_path: Path) -> None:
    base = base_of("qwen3_tied")
    adapter = adapt(base, tmp_path / "adapter", target_modules=["embed_tokens"])
    with pytest.raises(ModelError, match="one weight"):
        export(base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_is_named_and_nothing_is_left(bad: float, base_of, tmp_path: Path) -> None:
    base = base_of("qwen2")
    adapter = adapt(base, tmp_path / "adapter", target_modules=["q_proj"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    next(tensor for name, tensor in tensors.items() if "layers.1" in name)[0, 0] = bad
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"model\.layers\.1\.self_attn\.q_proj\.weight is not finite"):
        export(base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base-qwen2"]


def test_an_adapter_that_does_not_fit_is_refused(base_of, tmp_path: Path) -> None:
    base = base_of("qwen2")
    adapter = adapt(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "layers.0.self_attn.q_proj.lora_A" in name)
    save_file(tensors | {name: tensors[name][:, :-1].contiguous()}, file)
    with pytest.raises(
        ModelError, match=r"does not fit: it changes \[32, 31\] numbers of model.layers.0.self_attn.q_proj"
    ):
        export(base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "out")
    save_file({key: tensor for key, tensor in tensors.items() if "layers.1.self_attn.v_proj" not in key}, file)
    with pytest.raises(ModelError, match=r"it lacks model\.layers\.1\.self_attn\.v_proj"):
        export(base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "out")
