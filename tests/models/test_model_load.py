"""Finding and loading base models: what is whole loads, and what is broken is refused with its name."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import zoo
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith.config.model import ModelConfig
from tunesmith.log import MissingExtra, ModelError, OptionError
from tunesmith.models import load, precision
from tunesmith.models.architecture import code_that_runs
from tunesmith.models.attention import PACKAGES, choose_attention

CPU = torch.device("cpu")
Loader = Callable[..., PreTrainedModel]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def splits_otherwise(folder: Path) -> Path:
    """A Qwen2-shaped model whose tokenizer cuts words by other rules than Qwen2's, as distilled models have."""
    path = folder / "tokenizer.json"
    rules = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": None, "pre_tokenizer": rules}))
    return folder


def source(folder: Path) -> load.Source:
    return load.find(ModelConfig(model_name_or_path=str(folder)))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as refusal:
        load.check(source(folder))
    return str(refusal.value)


def shard(folder: Path) -> None:
    """Save the model again in several files."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_every_architecture_loads_as_transformers_loads_it(
    name: str, folder_of: Callable[[str], Path], loaded: Loader
) -> None:
    model = loaded(folder_of(name), trainable=False)
    theirs = AutoModelForCausalLM.from_pretrained(
        folder_of(name), attn_implementation=model.config._attn_implementation
    )
    assert torch.equal(zoo.logits(model), zoo.logits(theirs))
    assert not model.training


def test_relative_and_home_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert source(Path("model")).folder == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load.find(ModelConfig(model_name_or_path="~/model")).name == str(folder)


def test_a_folder_has_no_revisions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert load.find(ModelConfig(model_name_or_path=str(folder), model_revision="v2")).revision is None
    assert capsys.readouterr().err == (
        f"warning: model_revision: has no effect: {folder} is a folder, whose files are taken as they are\n"
    )


def test_a_missing_folder_names_what_is_near(folder: Path) -> None:
    with pytest.raises(ModelError) as refusal:
        load.find(ModelConfig(model_name_or_path=str(folder.parent / "modle")))
    assert f"no folder {folder.parent / 'modle'}; near: {folder}" in str(refusal.value)


def test_a_hub_name_without_a_hub_says_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as refusal:
        load.find(ModelConfig(model_name_or_path="nobody/nothing", cache_dir=str(tmp_path)))
    assert f"'nobody/nothing' is no folder here ({tmp_path / 'nobody/nothing'})" in str(refusal.value)
    assert "Hugging Face" in str(refusal.value)


def test_a_snapshot_in_the_cache_is_found_with_its_commit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "cache" / "models--some--model"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = load.find(ModelConfig(model_name_or_path="some/model", cache_dir=str(tmp_path / "cache")))
    assert (found.name, found.hub, found.revision) == ("some/model", "huggingface", commit)
    assert load.check(found).dtype == "float32"


def test_checking_imports_no_torch(tiny_model: Path, repo: Path) -> None:
    script = (
        "import sys\n"
        "from tunesmith.config.model import ModelConfig\n"
        "from tunesmith.models.complete import check\n"
        "from tunesmith.models.where import find\n"
        f"check(find(ModelConfig(model_name_or_path={str(tiny_model)!r})))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=repo, check=True)


def test_broken_folders_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert f"{weights}: truncated: it has {len(whole) - 100:,} bytes, its header promises {len(whole):,}" in refused(
        folder
    )
    weights.write_bytes(whole[:50])
    assert "truncated or damaged" in refused(folder)
    weights.write_bytes(b"")
    assert "no safetensors file" in refused(folder)
    weights.write_bytes(whole + b"x")
    assert "damaged" in refused(folder)
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    assert "Git LFS pointer" in refused(folder)
    weights.unlink()
    assert "no weights" in refused(folder)


def test_folders_without_their_parts_are_refused(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "kept")
    assert "no tokenizer" in refused(folder)
    (folder / "kept").rename(folder / "tokenizer.json")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in refused(folder)
    (folder / "config.json").write_text("{}")
    assert "neither model_type nor architectures" in refused(folder)
    (folder / "config.json").write_text(
        json.dumps({**json.loads(config), "quantization_config": {"quant_method": "gptq"}})
    )
    assert "quantized (gptq)" in refused(folder)
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    assert f"write model_name_or_path=some/base and adapter_name_or_path={folder}" in refused(folder)


def test_shards(folder: Path, loaded: Loader) -> None:
    before = zoo.logits(loaded(folder))
    shard(folder)
    files = load.check(source(folder)).files
    assert len(files) > 2
    assert torch.equal(zoo.logits(loaded(folder)), before)
    held = files[1].read_bytes()
    files[1].write_bytes(held[:-1])
    assert f"{files[1]}: truncated" in refused(folder)
    files[1].unlink()
    assert f"missing {files[1].name}, which model.safetensors.index.json names" in refused(folder)
    files[1].write_bytes(files[0].read_bytes())
    assert f"{files[1]}: it lacks the tensor" in refused(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert "lack their model.safetensors.index.json" in refused(folder)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "1 tensors missing from the files: model.layers.1.mlp.up_proj.weight"),
        ("unexpected", "1 tensors unknown to the architecture: model.layers.9.mlp.up_proj.weight"),
        ("shape", "model.layers.1.mlp.up_proj.weight (the file has [3, 3], the model [64, 32])"),
        ("nan", "the tensor model.layers.1.mlp.up_proj.weight holds values that are not finite"),
        ("overflow", "read as float16: the tensor model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_every_tensor_loads_or_none(how: str, said: str, folder: Path, loaded: Loader) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    if how == "missing":
        del tensors[name]
    elif how == "unexpected":
        tensors[name.replace("1", "9")] = tensors[name].clone()
    elif how == "shape":
        tensors[name] = torch.zeros(3, 3)
    else:
        tensors[name][5, 5] = float("nan") if how == "nan" else 1e30
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as refusal:
        loaded(folder, dtype=torch.float16 if how == "overflow" else torch.float32)
    assert said in str(refusal.value)


def test_pickled_weights_load_with_a_note(folder: Path, loaded: Loader, capsys: pytest.CaptureFixture[str]) -> None:
    before = zoo.logits(loaded(folder))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert torch.equal(zoo.logits(loaded(folder)), before)
    assert "pickled .bin files" in capsys.readouterr().err
    (folder / "pytorch_model.bin").write_bytes(b"half a file")
    assert "pytorch_model.bin: truncated" in refused(folder)


def test_a_pickle_that_runs_code_is_refused(folder: Path, loaded: Loader, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="hold more than tensors"):
        loaded(folder)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_folder_runs_only_when_needed_and_allowed(folder: Path, loaded: Loader, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"}
    (folder / "theirs.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "class TheirConfig(Qwen2Config):\n    model_type = 'theirs'\n"
        "class TheirModel(Qwen2ForCausalLM):\n    config_class = TheirConfig\n"
    )
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto_map}))
    before = zoo.logits(loaded(folder, trust_remote_code=True))
    assert not (tmp_path / "ran").exists(), "transformers knows qwen2, so the folder's code must not run"

    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto_map, "model_type": "theirs"}))
    with pytest.raises(ModelError, match=r"brings code \(theirs.py\) that trust_remote_code=true would run"):
        loaded(folder)
    assert not (tmp_path / "ran").exists()
    assert torch.equal(zoo.logits(loaded(folder, trust_remote_code=True)), before)
    assert (tmp_path / "ran").exists()
    hashes = code_that_runs(source(folder), ModelConfig(trust_remote_code=True))
    assert list(hashes) == ["theirs.py"] and len(hashes["theirs.py"]) == 64

    foreign = {**auto_map, "AutoConfig": "some/where--theirs.TheirConfig"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": foreign, "model_type": "theirs"}))
    with pytest.raises(ModelError, match="some/where--theirs"):
        loaded(folder, trust_remote_code=True)
    (folder / "theirs.py").unlink()
    with pytest.raises(ModelError, match="brings no code"):
        loaded(folder, trust_remote_code=True)


def test_a_model_that_writes_no_text_is_refused(folder: Path, loaded: Loader) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match="vit has no causal language model"):
        loaded(folder)


def test_training_mode(tiny_model: Path, loaded: Loader) -> None:
    model = loaded(tiny_model, gradient_checkpointing=True)
    assert model.training and model.config.use_cache is False and model.is_gradient_checkpointing
    plain = loaded(tiny_model)
    ids = torch.arange(3, 20)[None]
    grads = []
    for one in (model, plain):
        one(input_ids=ids, labels=ids).loss.backward()
        grads.append([weight.grad for weight in one.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_a_tokenizer_keeps_its_pad_token(tiny_model: Path) -> None:
    own = load.load_tokenizer(source(tiny_model), ModelConfig())
    assert (own.pad_token, own.eos_token, len(own)) == ("<|endoftext|>", "<|im_end|>", 600)


def test_an_adapters_folder_gives_its_tokenizer(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert len(load.load_tokenizer(source(folder), ModelConfig())) == 600


def test_a_tokenizer_without_pad_token_gets_its_end_token(
    splits_otherwise: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = splits_otherwise
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "pad_token"}))
    tokenizer = load.load_tokenizer(source(folder), ModelConfig())
    assert (tokenizer.pad_token, len(tokenizer)) == ("<|im_end|>", 600)
    assert "note: tokenizer: it has no pad token; '<|im_end|>' fills up rows" in capsys.readouterr().err


def test_a_real_tokenizer(shared_data: Path, tmp_path: Path, folder: Path, loaded: Loader) -> None:
    for path in (shared_data / "tokenizers" / "gpt-neox").iterdir():
        shutil.copy(path, folder / path.name)
    tokenizer = load.load_tokenizer(source(folder), ModelConfig())
    assert tokenizer.is_fast and tokenizer.pad_token is not None
    text = "The quick brown fox, 12 times.\n你好"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    with pytest.raises(ModelError, match=r"ids go up to 502\d\d .* the embeddings have 600 rows"):
        load.check_vocabulary(loaded(folder), tokenizer)


def test_tokenizer_json_is_believed(splits_otherwise: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Transformers 5 gives every qwen2 model Qwen2's own rules, which cut ` 12` before its digits; the file does not."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    folder = splits_otherwise
    text = "In 1999 it cost 12 or 345 coins;\n\n  cafe\u0301 don't 你好"
    written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = load.load_tokenizer(source(folder), ModelConfig())
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == written.encode(text, add_special_tokens=False).ids
    assert "read as tokenizer.json says" in capsys.readouterr().err
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.tokenize(text) != tokenizer.tokenize(text), "no longer needed: AutoTokenizer follows the file"
    tokenizer.save_pretrained(folder.parent / "saved")
    again = Tokenizer.from_file(str(folder.parent / "saved" / "tokenizer.json"))
    assert again.encode(text).ids == written.encode(text).ids


def test_a_text_gives_the_same_tokens_each_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text())
    written["model"]["dropout"] = 0.5
    path.write_text(json.dumps(written))
    read = load.load_tokenizer(source(folder), ModelConfig())
    assert len({tuple(read.encode("the river runs slowly towards the sea")) for _ in range(9)}) == 1
    assert "its dropout of 0.5 is left out" in capsys.readouterr().err


def test_a_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        load.load_tokenizer(source(folder), ModelConfig())


def test_attention(folder_of: Callable[[str], Path]) -> None:
    def chosen(name: str, written: str) -> str:
        cfg = ModelConfig(model_name_or_path=str(folder_of(name)), flash_attn=written)
        return load.attention_for(load.find(cfg), cfg, dtype=torch.float32, device=CPU)

    assert [chosen("qwen2", one) for one in ("auto", "sdpa", "disabled")] == ["sdpa", "sdpa", "eager"]
    assert chosen("gemma2", "auto") == "eager"
    with pytest.raises(OptionError, match=r"sdpa is not available here: Gemma2.*; available: auto, disabled"):
        chosen("gemma2", "sdpa")
    with pytest.raises(OptionError, match="fa2 is not available here: it needs a GPU; available: auto, sdpa, disabled"):
        chosen("qwen2", "fa2")
    with pytest.raises(OptionError, match="flex is not available here: it needs a GPU"):
        chosen("qwen2", "flex")


@pytest.mark.parametrize(("written", "how"), [("fa2", "pip install flash-attn"), ("fa3", "github.com/Dao-AILab")])
def test_attention_whose_package_is_missing(written: str, how: str) -> None:
    if importlib.util.find_spec(PACKAGES[written][0]) is not None:
        pytest.skip("it is installed")
    with pytest.raises(MissingExtra, match=rf"flash_attn: {written} is not installed; .*{how}"):
        choose_attention(written, transformers.Qwen2ForCausalLM, torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize("flags", [frozenset(), frozenset({"avx512_bf16"}), frozenset({"amx_bf16"})])
def test_precision_on_the_cpu(
    flags: frozenset[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    resolve = precision.resolve_compute_type
    assert resolve("auto", CPU).name == ("bf16" if flags else "fp32")
    bf16 = resolve("bf16", CPU)
    assert (bf16.autocast, bf16.weights, bf16.trained) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert ("slower than fp32" in capsys.readouterr().err) is (not flags)
    pure = resolve("pure_bf16", CPU)
    assert (pure.autocast, pure.weights, pure.trained) == (None, torch.bfloat16, torch.bfloat16)
    assert resolve("fp32", CPU).autocast is None
    with pytest.raises(OptionError, match="fp16 does not work on this cpu; it supports bf16, pure_bf16, fp32"):
        resolve("fp16", CPU)
    with pytest.raises(
        OptionError, match=r"fp8 needs a GPU of compute capability 8\.9 or more; this cpu supports bf16, pure"
    ):
        resolve("fp8", CPU)


@pytest.mark.parametrize("has_bf16", [False, True])
def test_precision_on_a_gpu(has_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0) if has_bf16 else (7, 5))
    gpu = torch.device("cuda")
    assert precision.resolve_compute_type("auto", gpu).name == ("bf16" if has_bf16 else "fp32")
    assert precision.resolve_compute_type("fp16", gpu).scaler
    if has_bf16:
        assert precision.resolve_compute_type("fp8", gpu).short
    if not has_bf16:
        with pytest.raises(OptionError, match="this cuda supports fp16, fp32"):
            precision.resolve_compute_type("fp8", gpu)
        with pytest.raises(OptionError, match="bf16 does not work on this cuda; it supports fp16, fp32"):
            precision.resolve_compute_type("bf16", gpu)


def test_weights_that_may_not_be_read_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refuse(self: Path, *given: Any, **named: Any) -> Any:
        if self.name == "model.safetensors":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *given, **named)

    monkeypatch.setattr(Path, "open", refuse)
    assert refused(folder).endswith("model.safetensors: cannot be read: Permission denied")


def test_a_gpu_multiplies_in_tf32_where_it_can(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    products = torch.backends.cuda.matmul
    precision.allow_tf32(CPU)
    assert "warning: tf32: has no effect" in capsys.readouterr().err
    for capability, allowed in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        try:
            with nullcontext() if allowed else pytest.raises(OptionError, match="tf32: needs"):
                precision.allow_tf32(torch.device("cuda"))
            assert products.allow_tf32 is allowed
        finally:
            products.allow_tf32 = False
