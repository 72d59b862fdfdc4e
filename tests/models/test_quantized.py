"""Weights in few bits: what is computed with them, what LoRA beside them saves, and what does not go together."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from tunesmith.config.model import ModelConfig
from tunesmith.config.tuning import TuningConfig
from tunesmith.log import MissingExtra, ModelError, OptionError
from tunesmith.models import quantized, quantizers
from tunesmith.models.precision import BY_NAME
from tunesmith.models.save import save_weights
from tunesmith.models.tuning import adapters, loftq, lora
from tunesmith.models.tuning.fused import fuse
from tunesmith.models.where import Source

Loader = Callable[..., PreTrainedModel]
Folders = Callable[[str], Path]
WAYS = [("bnb", 4), ("bnb", 8), ("hqq", 8), ("hqq", 4), ("hqq", 2)]


def tuned(model: PreTrainedModel, **options: object) -> PeftModel:
    torch.manual_seed(1)
    return lora.apply(model, TuningConfig(**{"lora_rank": 4, **options}), precision=BY_NAME["fp32"])


@pytest.mark.parametrize(("method", "bits"), WAYS)
def test_a_step_from_the_quantized_base(method: str, bits: int, folder_of: Folders, loaded: Loader, capsys) -> None:
    exact = zoo.logits(loaded(folder_of("llama")))
    model = loaded(folder_of("llama"), quantization_bit=bits, quantization_method=method)
    assert f"note: quantization_bit: 14 linear layers are held in {bits} bits\n" in capsys.readouterr().err
    assert quantized.is_quantized(model)
    rounded = zoo.logits(model)
    apart = (rounded - exact).abs().max() / exact.std()
    assert 0 < apart < {8: 0.2, 4: 1.5, 2: 8}[bits]
    adapted = tuned(model)
    assert torch.equal(zoo.logits(adapted), rounded), "step 0 is not the quantized base"
    ids = torch.arange(3, 20)[None]
    adapted(input_ids=ids, labels=ids).loss.backward()
    trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(trained) == 28 and all(weight.grad is not None for weight in trained.values())
    assert all(weight.grad.any() for name, weight in trained.items() if "lora_B" in name)


@pytest.mark.parametrize(("method", "bits"), WAYS)
def test_the_weights_file_is_let_go(method: str, bits: int, folder_of: Folders, loaded: Loader) -> None:
    folder = folder_of("llama")
    model = loaded(folder, quantization_bit=bits, quantization_method=method)
    assert str(folder) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert zoo.logits(model).isfinite().all()


@pytest.mark.parametrize(("method", "bits"), WAYS)
def test_lora_beside_few_bits_is_computed_at_once(method: str, bits: int, folder_of: Folders, loaded: Loader) -> None:
    """As peft computes it; LLM.int8, which rounds what it is given too, stays peft's."""
    adapted = tuned(loaded(folder_of("llama"), quantization_bit=bits, quantization_method=method))
    zoo.shake(adapted)
    ids = torch.arange(3, 20).repeat(2, 1)

    def gradients() -> dict[str, torch.Tensor]:
        adapted.zero_grad()
        adapted(input_ids=ids, labels=ids).loss.backward()
        return {name: weight.grad.clone() for name, weight in adapted.named_parameters() if weight.grad is not None}

    logits, before = zoo.logits(adapted), gradients()
    if (method, bits) == ("bnb", 8):
        assert fuse(adapted) == 0
        return
    assert fuse(adapted) == 14
    torch.testing.assert_close(zoo.logits(adapted), logits, rtol=1e-4, atol=1e-4)
    after = gradients()
    assert after.keys() == before.keys()
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kind", "double"), [("nf4", True), ("nf4", False), ("fp4", False)])
def test_what_is_saved_opens_in_peft_on_a_base_held_the_same_way(
    kind: str, double: bool, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    base = folder_of("llama")
    options = {"quantization_bit": 4, "quantization_type": kind, "double_quantization": double}
    adapted = tuned(loaded(base, **options))
    zoo.shake(adapted)
    save_weights(adapted, tmp_path)
    said = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
    )
    theirs = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, quantization_config=said, device_map={"": "cpu"}, attn_implementation="sdpa"
    )
    theirs = PeftModel.from_pretrained(theirs, tmp_path)
    quantized._keep_as_trained(theirs)
    torch.testing.assert_close(zoo.logits(theirs), zoo.logits(adapted))
    ours = adapters.attach(loaded(base, trainable=False, **options), [Source("a", tmp_path)])
    assert torch.equal(zoo.logits(ours), zoo.logits(adapted))
    whole = zoo.logits(adapters.attach(loaded(base, trainable=False), [Source("a", tmp_path)]))
    assert not torch.allclose(whole, zoo.logits(adapted), atol=1e-3)


def test_the_kind_of_4_bits_is_what_is_asked_for(folder_of: Folders, loaded: Loader) -> None:
    options = [{}, {"quantization_type": "fp4"}, {"double_quantization": False}]
    found = [zoo.logits(loaded(folder_of("llama"), quantization_bit=4, **one)) for one in options]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize(("method", "bits"), WAYS)
def test_loftq_brings_the_start_nearer_to_the_base(method: str, bits: int, folder_of: Folders, loaded: Loader) -> None:
    base = folder_of("llama")
    model = loaded(base, quantization_bit=bits, quantization_method=method)
    exact = dict(loaded(base).named_parameters())
    adapted = tuned(model, lora_init="loftq", lora_alpha=3.0)
    loftq.start(adapted, Source(str(base), base))
    name = "model.layers.0.mlp.down_proj"
    layer = adapted.get_base_model().get_submodule(name)
    lost = exact[f"{name}.weight"].detach() - quantized.whole(layer.base_layer)
    change = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    sizes = torch.linalg.svdvals(lost)
    left = torch.linalg.matrix_norm(lost - change.detach())
    torch.testing.assert_close(left, sizes[4:].square().sum().sqrt(), rtol=1e-3, atol=1e-5)


def test_nothing_is_merged_into_few_bits(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    save_weights(tuned(loaded(folder_of("llama"))), tmp_path)
    with pytest.raises(ModelError, match="cannot be merged into weights of few bits"):
        adapters.merge(loaded(folder_of("llama"), quantization_bit=4), [Source("a", tmp_path)])


def test_few_bits_are_not_trained(folder_of: Folders, loaded: Loader) -> None:
    model = loaded(folder_of("llama"), quantization_bit=4)
    with pytest.raises(OptionError, match="q_proj is held in few bits"):
        tuned(model, additional_target=["q_proj"])
    assert tuned(model, additional_target=["lm_head"])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizers.importlib.util, "find_spec", lambda name: None)
    quantizers.require(ModelConfig())
    for method, package in quantizers.PACKAGES.items():
        with pytest.raises(MissingExtra, match=rf"pip install 'tunesmith\[{package}\]'"):
            quantizers.require(ModelConfig(quantization_bit=4, quantization_method=method))
