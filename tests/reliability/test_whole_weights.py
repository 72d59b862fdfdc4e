"""Weights load whole or not at all; each folder here is a tiny model with one thing wrong."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import adapt
from safetensors.torch import load_file, save_file

WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
NAME = "model.layers.1.mlp.up_proj.weight"
Break = Callable[[Path], object]


def tensors(change: Callable[[dict[str, torch.Tensor]], object], file: str = WEIGHTS) -> Break:
    def spoil(folder: Path) -> None:
        found = load_file(folder / file)
        change(found)
        save_file(found, folder / file, metadata={"format": "pt"})

    return spoil


def put(name: str, content: str | bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def keys(name: str, **changes: Any) -> Break:
    def spoil(folder: Path) -> None:
        written = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({key: value for key, value in written.items() if value is not ...}))

    return spoil


def header(content: Any) -> Break:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return put(WEIGHTS, struct.pack("<Q", len(text)) + text)


def index(weight_map: Any) -> Break:
    def spoil(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "a.safetensors")
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return spoil


def two_files(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "b.safetensors")
    names = list(load_file(folder / WEIGHTS))
    index(dict.fromkeys(names, "a.safetensors") | {names[0]: "b.safetensors"})(folder)


def instead(name: str, make: Callable[[Path], object]) -> Break:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


def token(number: int) -> Break:
    def spoil(folder: Path) -> None:
        path = folder / "tokenizer.json"
        written = json.loads(path.read_text())
        written["added_tokens"].append(written["added_tokens"][0] | {"id": number, "content": "<|beyond|>"})
        path.write_text(json.dumps(written))

    return spoil


BROKEN: dict[str, tuple[Break, str]] = {
    "missing": (tensors(lambda t: t.pop(NAME)), NAME),
    "unexpected": (tensors(lambda t: t.update({"x.y": torch.zeros(2)})), "x.y"),
    "misshapen": (tensors(lambda t: t.update({NAME: torch.zeros(3, 3)})), NAME),
    "transposed": (tensors(lambda t: t.update({NAME: t[NAME].t().contiguous()})), NAME),
    "nan": (tensors(lambda t: t[NAME].fill_(float("nan"))), NAME),
    "infinite": (tensors(lambda t: t[NAME].fill_(float("inf"))), NAME),
    "too large for fp32": (tensors(lambda t: t.update({NAME: t[NAME].double() * 1e300})), NAME),
    "whole numbers": (tensors(lambda t: t.update({NAME: t[NAME].to(torch.int8)})), "I8"),
    "truncated": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "truncated"),
    "empty": (put(WEIGHTS, ""), WEIGHTS),
    "garbage": (put(WEIGHTS, b"\xff" * 1000), WEIGHTS),
    "no tensors": (header({}), "no tensors"),
    "header of a list": (header([]), "header"),
    "header too deep": (header(b"[" * 5000), "header"),
    "header without a type": (header({"a": {"shape": [0], "data_offsets": [0, 0]}}), "header"),
    "header with a hole": (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}), "header"),
    "header of a negative place": (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), "header"),
    "index of nothing": (index({}), "names no weights"),
    "index of a list": (index([1]), "names no weights"),
    "index of missing files": (index({NAME: "no.safetensors"}), "no.safetensors"),
    "index of numbers": (index({NAME: 5}), "no file's name"),
    "index that leads out": (index({NAME: "../a.safetensors"}), "no file's name"),
    "index without a name": (index({NAME: ""}), "no file's name"),
    "a tensor in two files": (two_files, "another file holds"),
    "a link to nowhere": (instead("chat_template.jinja", lambda path: path.symlink_to("x")), "leads nowhere"),
    "a pipe": (instead("generation_config.json", os.mkfifo), "it is no file"),
    "a pointer": (put("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n"), "tokenizer.json: a Git LFS pointer"),
    "index of some": (index({NAME: "a.safetensors"}), "does not name"),
    "index of more": (index({"zz": "a.safetensors"}), "zz"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
    "tokenizer truncated": (put("tokenizer.json", "{"), "tokenizer"),
    "tokenizer of a list": (put("tokenizer.json", "[]"), "tokenizer"),
    "tokenizer's config truncated": (put("tokenizer_config.json", "{"), "tokenizer"),
    "ids beyond the vocabulary": (token(700), "the embeddings have 600 rows"),
    "config truncated": (put("config.json", "{"), "config.json"),
    "config of a list": (put("config.json", "[]"), "config.json"),
    "config of nothing": (put("config.json", "{}"), "config.json"),
    "config too deep": (put("config.json", "[" * 99_999), "nested too deeply"),
    "config is a folder": (lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()), "config.json"),
    "no architecture": (keys("config.json", model_type=..., architectures=...), "config.json"),
    "architecture of a list": (keys("config.json", model_type=["qwen2"]), "model_type"),
    "unknown architecture": (keys("config.json", model_type="nosuch"), "nosuch"),
    "no language model": (keys("config.json", model_type="vit"), "vit"),
    "another architecture": (keys("config.json", model_type="gpt2"), "tensors missing"),
    "more layers": (keys("config.json", num_hidden_layers=5), "num_hidden_layers"),
    "layers in words": (keys("config.json", num_hidden_layers="two"), "num_hidden_layers"),
    "wider": (keys("config.json", hidden_size=64), "shape"),
    "without sizes": (put("config.json", '{"model_type": "llama", "num_hidden_layers": 2}'), "those of another model"),
    "ten thousand layers": (keys("config.json", num_hidden_layers=10**4, layer_types=...), "num_hidden_layers is 10,000"),
    "a vocabulary of billions": (keys("config.json", vocab_size=10**12), "those of another model"),
    "dropout beyond one": (keys("config.json", attention_dropout=5.0), "attention_dropout must be"),
    "a part that is none": (keys("config.json", text_config={"a": 1}), "config.json"),
    "length in words": (keys("tokenizer_config.json", model_max_length="long"), "model_max_length"),
    "no heads": (keys("config.json", num_attention_heads=0), "cannot be loaded"),
    "unknown activation": (keys("config.json", hidden_act="nosuch"), "nosuch"),
    "unknown type": (keys("config.json", dtype="floaty"), "floaty"),
    "quantized": (keys("config.json", quantization_config={"quant_method": "gptq"}), "gptq"),
    "padding beyond the vocabulary": (keys("config.json", pad_token_id=99_999), "cannot be loaded"),
    "generation config of a list": (put("generation_config.json", "[]"), "cannot be loaded"),
    "nothing": (lambda f: [path.unlink() for path in f.iterdir()], "config.json"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_model_is_refused_with_what_is_wrong(how, train, tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    spoil, said = BROKEN[how]
    spoil(folder)
    ended = train(model_name_or_path=folder)
    assert ended.code == 2 and said in ended.err and "internal error" not in ended.err, ended
    assert not list(Path().rglob("*.safetensors"))


def test_a_template_whose_control_tokens_the_vocabulary_lacks_is_told(train):
    ended = train(template="llama3")
    assert "<|eot_id|>" in ended.err and ended.code in (0, 2, 3), ended


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
CONFIG = "adapter_config.json"
BROKEN_ADAPTERS: dict[str, tuple[Break, str]] = {
    "truncated config": (put(CONFIG, "{"), CONFIG),
    "config of a list": (put(CONFIG, "[]"), CONFIG),
    "config too deep": (put(CONFIG, "[" * 99_999), CONFIG),
    "rank in words": (keys(CONFIG, r="x"), "r must be"),
    "rank 0": (keys(CONFIG, r=0), "r must be"),
    "another rank": (keys(CONFIG, r=9), "does not fit"),
    "alpha in words": (keys(CONFIG, lora_alpha="x"), "lora_alpha"),
    "dropout of 5": (keys(CONFIG, lora_dropout=5), "lora_dropout"),
    "unknown kind": (keys(CONFIG, peft_type="NOSUCH"), "NOSUCH"),
    "a number for targets": (keys(CONFIG, target_modules=5), "target_modules"),
    "a broken expression": (keys(CONFIG, target_modules=".*["), "target_modules"),
    "unknown targets": (keys(CONFIG, target_modules=["nosuch"]), "nosuch"),
    "a number for the base": (keys(CONFIG, base_model_name_or_path=5), "base_model_name_or_path"),
    "nan": (tensors(lambda t: t[FIRST].fill_(float("nan")), ADAPTER), "q_proj"),
    "missing": (tensors(lambda t: t.pop(FIRST), ADAPTER), "lacks"),
    "unexpected": (tensors(lambda t: t.update({"x.lora_A.weight": torch.zeros(2)}), ADAPTER), "x.lora_A"),
    "misshapen": (tensors(lambda t: t.update({FIRST: torch.zeros(3, 3)}), ADAPTER), "does not fit"),
    "whole numbers": (tensors(lambda t: t.update({FIRST: t[FIRST].to(torch.int8)}), ADAPTER), "floating-point"),
    "truncated": (lambda f: (f / ADAPTER).write_bytes((f / ADAPTER).read_bytes()[:-9]), "truncated"),
    "no weights": (lambda f: (f / ADAPTER).unlink(), "no adapter weights"),
    "weights that are a pipe": (instead(ADAPTER, os.mkfifo), "it is no file"),
    "weights that are a folder": (instead(ADAPTER, Path.mkdir), "it is no file"),
    "pickled numbers": (instead(ADAPTER, lambda path: torch.save({"a": 5}, path.with_suffix(".bin"))), "something else than tensors"),
    "a pickled list": (instead(ADAPTER, lambda path: torch.save([1], path.with_suffix(".bin"))), "something else than tensors"),
    "too large for fp32": (tensors(lambda t: t.update({FIRST: t[FIRST].double() * 1e300}), ADAPTER), "q_proj"),
    "rank of billions": (keys(CONFIG, r=10**9), "r is 1000000000"),
    "alpha 0": (keys(CONFIG, lora_alpha=0), "lora_alpha"),
    "words for true": (keys(CONFIG, use_rslora="false"), "use_rslora must be true or false"),
    "ids in words": (keys(CONFIG, trainable_token_indices={"embed_tokens": ["x"]}), "trainable_token_indices"),
}  # fmt: skip


@pytest.fixture(scope="session")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapt(tiny_model, tmp_path_factory.mktemp("adapters") / "one")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("how", BROKEN_ADAPTERS)
def test_a_broken_adapter_is_refused_with_what_is_wrong(how, train, command, adapter, tiny_model, tmp_path):
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    spoil, said = BROKEN_ADAPTERS[how]
    spoil(folder)
    ended = train(adapter_name_or_path=folder)
    assert ended.code == 2 and said in ended.err and "internal error" not in ended.err, ended
    merged = command(
        "export", f"model_name_or_path={tiny_model}", f"adapter_name_or_path={folder}", "export_dir=merged"
    )
    assert "internal error" not in merged.err and not (merged.code and Path("merged").exists()), merged
