"""`.bin` files hold what safetensors would, open elsewhere, and are read back with what they say of other adapters."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith.config.tuning import TuningConfig
from tunesmith.log import ModelError
from tunesmith.models.precision import BY_NAME
from tunesmith.models.save import save_weights
from tunesmith.models.tuning import adapters, lora
from tunesmith.models.where import Source

Loader = Callable[..., PreTrainedModel]
Folders = Callable[[str], Path]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["qwen2", "qwen3_tied", "mixtral", "gpt2"])
@pytest.mark.parametrize("most_bytes", [10**9, 60_000])
def test_a_whole_model(
    name: str, most_bytes: int, folder_of: Folders, loaded: Loader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = loaded(folder_of(name))
    before = zoo.logits(model)
    save_weights(model, tmp_path, most_bytes=most_bytes, bins=True)
    written = names(tmp_path)
    assert not any(one.endswith(".safetensors") or "safetensors" in one for one in written)
    assert ("pytorch_model.bin" in written) == (most_bytes == 10**9)
    assert ("pytorch_model.bin.index.json" in written) == (most_bytes != 10**9)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="sdpa")
    assert torch.equal(zoo.logits(theirs), zoo.logits(AutoModelForCausalLM.from_pretrained(folder_of(name))))
    for file in folder_of(name).glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert torch.equal(zoo.logits(loaded(tmp_path)), before)
    assert "pickled .bin files" in capsys.readouterr().err


def make(base: Path, folder: Path, loaded: Loader, *onto: Path, **options: object) -> PeftModel:
    torch.manual_seed(1)
    cfg = TuningConfig(**{"lora_rank": 4, **options})
    tuned = lora.apply(
        loaded(base), cfg, precision=BY_NAME["fp32"], adapters=[Source(str(path), path) for path in onto]
    )
    zoo.shake(tuned)
    save_weights(tuned, folder, bins=True)
    return tuned


def test_an_adapter(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    base = folder_of("qwen2")
    expected = zoo.logits(make(base, tmp_path, loaded, additional_target=["lm_head"]))
    assert names(tmp_path) == {"adapter_config.json", "adapter_model.bin"}
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path)
    torch.testing.assert_close(zoo.logits(theirs), expected)
    torch.testing.assert_close(zoo.logits(adapters.attach(loaded(base), [Source("a", tmp_path)])), expected)


def test_an_adapter_that_holds_another_says_so(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    base, first, second = folder_of("qwen2"), tmp_path / "first", tmp_path / "second"
    make(base, first, loaded)
    make(base, second, loaded, first, create_new_adapter=True)
    assert json.loads((second / "adapter_holds.json").read_text()) == [str(first)]
    with pytest.raises(ModelError, match="already holds"):
        adapters.merge(loaded(base), [Source(str(path), path) for path in (first, second)])
