"""`tunesmith export`: the folder it writes, whole or not at all, and what it refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from adapted import adapt, same
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from tunesmith.export import beside, plan
from tunesmith.export.command import export_command
from tunesmith.log import OptionError, RunError
from tunesmith.models import pickled


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A model's folder of the test's own."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


def export(*words: object) -> int:
    return export_command([str(word) for word in words])


def test_weights_are_divided_and_found_again(base: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tunesmith.export.command.GIGABYTE", 20_000)
    assert export(base, "--export_dir", tmp_path / "out", "--export_size", "1") == 0
    monkeypatch.undo()
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = {file.name: load_file(file) for file in (tmp_path / "out").glob("*.safetensors")}
    before = load_file(base / "model.safetensors")
    assert len(shards) > 2 and set(index["weight_map"].values()) == set(shards)
    assert all(name in shards[file] for name, file in index["weight_map"].items())
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in before.values())
    assert export(tmp_path / "out", "--export_dir", tmp_path / "again") == 0
    same(load_file(tmp_path / "again" / "model.safetensors"), before)
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_bin_files_hold_the_same(base: Path, tmp_path: Path, capsys) -> None:
    adapter = adapt(base, tmp_path / "adapter", target_modules=["q_proj"])
    for folder, legacy in (("out", False), ("bins", True)):
        export(
            base, "--adapter_name_or_path", adapter, "--export_dir", tmp_path / folder, f"export_legacy_format={legacy}"
        )
    assert [path.name for path in (tmp_path / "bins").glob("*.*n*") if path.suffix in (".bin", ".safetensors")] == [
        "pytorch_model.bin"
    ]
    same(pickled.read(tmp_path / "bins" / "pytorch_model.bin"), load_file(tmp_path / "out" / "model.safetensors"))
    assert "GB in 1 file, " in capsys.readouterr().out
    again = tmp_path / "again"
    export(tmp_path / "bins", "--export_dir", again)
    same(load_file(again / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors"))


def test_nothing_is_written_over(base: Path, tmp_path: Path, monkeypatch) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    with pytest.raises(OptionError, match="is not empty"):
        export(base, "--export_dir", full)
    with pytest.raises(OptionError, match="is the folder that model_name_or_path names"):
        export(base, "--export_dir", base)
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OptionError, match=r"needs .* GB, and the disk has 0\.0 GB free"):
        export(base, "--export_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["export_quantization_bit=4"], "not built yet"),
        (["export_hub_model_id=a/b", "use_modelscope=true"], "ModelScope"),
        ([], "export_dir: is missing"),
    ],
)
def test_what_is_not_built_is_refused_before_anything_starts(words: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=reason):
        export("some/model", *words, *([f"export_dir={tmp_path / 'out'}"] if words else []))


def test_the_adapters_folder_brings_tokenizer_template_and_end_tokens(base: Path, tmp_path: Path) -> None:
    adapter = adapt(base, tmp_path / "adapter", target_modules=["q_proj"])
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ 'trained so' }}"
    tokenizer.save_pretrained(adapter)
    (adapter / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    assert export(base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "out") == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ 'trained so' }}"
    assert json.loads((tmp_path / "out" / beside.GENERATION).read_text())["eos_token_id"] == [2, 5]
    words = [base, f"adapter_name_or_path={adapter}", "--export_dir", tmp_path / "named", "--template", "chatml"]
    assert export(*words) == 0
    named = AutoTokenizer.from_pretrained(tmp_path / "named")
    text = named.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_an_adapters_folder_alone_names_its_base(base: Path, tmp_path: Path) -> None:
    adapter = adapt(base, tmp_path / "adapter", target_modules=["q_proj"])
    assert export(adapter, "--export_dir", tmp_path / "out") == 0
    assert PretrainedConfig.from_pretrained(tmp_path / "out").model_type == "qwen2"


class Hub:
    """Stands in for the hub's client and remembers what it was asked."""

    asked: ClassVar[list[tuple]] = []

    def __init__(self, token: str | None) -> None:
        self.asked.append(("token", token))

    def create_repo(self, name: str, exist_ok: bool) -> SimpleNamespace:
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if repo_id == "me/none":
            raise OSError("no such account")
        self.asked.append((repo_id, sorted(path.name for path in Path(folder_path).glob("*.safetensors"))))


def test_a_whole_folder_is_uploaded(base: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    words = ["--hf_hub_token", "secret", "--export_hub_model_id"]
    assert export(base, "--export_dir", tmp_path / "out", *words, "me/mine") == 0
    assert Hub.asked == [("token", "secret"), ("me/mine", ["model.safetensors"])]
    with pytest.raises(RunError, match=r"is whole, but me/none was not uploaded: no such account"):
        export(base, "--export_dir", tmp_path / "other", *words, "me/none")
    assert (tmp_path / "other" / "model.safetensors").is_file()


def test_a_model_without_adapters_is_copied_and_opens(base: Path, tmp_path: Path) -> None:
    assert export(base, "--export_dir", tmp_path / "out") == 0
    same(load_file(tmp_path / "out" / "model.safetensors"), load_file(base / "model.safetensors"))
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "out"))
    assert after.chat_template == before.chat_template and after.get_vocab() == before.get_vocab()
