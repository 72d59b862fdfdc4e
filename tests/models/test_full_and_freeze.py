"""Full and freeze tuning: which weights are trained, in which formats, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from tunesmith.config.tuning import TuningConfig
from tunesmith.log import OptionError, RunError
from tunesmith.models import load, recompute
from tunesmith.models.precision import BY_NAME
from tunesmith.models.save import load_trained, restore_trained_exact, save_final, save_trained_exact, save_weights
from tunesmith.models.tuning import freeze, full, lora
from tunesmith.models.tuning.count import trainable
from tunesmith.models.tuning.fused import fuse

Loader = Callable[..., PreTrainedModel]
Folders = Callable[[str], Path]


def trained_names(model: PreTrainedModel) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_fully_tuned_model_opens_elsewhere_in_the_bases_type(
    name: str, dtype: torch.dtype, loaded: Loader, tmp_path: Path
) -> None:
    base = zoo.build(name, tmp_path / "base", dtype)
    precision = BY_NAME["bf16"]
    cfg = TuningConfig(finetuning_type="full")
    model = full.apply(loaded(base, dtype=precision.load_dtype(cfg)), cfg, precision=precision)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    trained, total = trainable(model)
    assert trained == total
    zoo.shake(model)
    after = zoo.logits(model)
    save_weights(model, tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation=model.config._attn_implementation, dtype="auto"
    )
    assert again.dtype == dtype
    stored = {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()}
    assert stored == {dtype}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")
    assert config.get("use_cache", True) is True
    if dtype == torch.float32:
        torch.testing.assert_close(zoo.logits(again), after, atol=1e-5, rtol=1e-5)
    else:
        rounded = {key: value.to(dtype) for key, value in model.state_dict().items()}
        assert all(torch.equal(value, rounded[key]) for key, value in again.state_dict().items())


def test_freeze_takes_the_last_or_first_layers(folder_of: Folders, loaded: Loader) -> None:
    def trained(**options: object) -> set[str]:
        cfg = TuningConfig(finetuning_type="freeze", **options)
        return trained_names(freeze.apply(loaded(folder_of("qwen2")), cfg, precision=BY_NAME["fp32"]))

    last = trained(freeze_trainable_layers=1)
    assert last and all(name.startswith("model.layers.1.") for name in last)
    first = trained(freeze_trainable_layers=-1)
    assert first == {name.replace("layers.1.", "layers.0.") for name in last}
    assert trained(freeze_trainable_layers=1, freeze_trainable_modules=["mlp", "q_proj"]) == {
        name for name in last if ".mlp." in name or ".q_proj." in name
    }
    assert trained(freeze_trainable_layers=0, freeze_extra_modules=["embed_tokens", "norm"]) == {
        "model.embed_tokens.weight",
        "model.norm.weight",
    }


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("method", ["freeze", "lora"])
def test_layers_below_the_lowest_trained_one_keep_nothing_for_the_way_back(
    method: str, recomputed: bool, folder_of: Folders, loaded: Loader
) -> None:
    """Nor are they computed again."""
    model = loaded(folder_of("qwen2"), gradient_checkpointing=recomputed)
    layers, calls, graphs = model.model.layers, [0, 0], []
    if method == "freeze":
        cfg = TuningConfig(finetuning_type="freeze", freeze_trainable_layers=1)
        policy = freeze.apply(model, cfg, precision=BY_NAME["fp32"])
    else:
        config = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1], task_type="CAUSAL_LM")
        policy = get_peft_model(model, config)
        recompute.need_no_gradients_of_inputs(model)
        fuse(policy)

    def count(number: int) -> None:
        calls[number] += 1

    for number in (0, 1):
        layers[number].mlp.register_forward_pre_hook(lambda module, args, number=number: count(number))
    layers[0].mlp.register_forward_hook(lambda module, args, made: graphs.append(made.requires_grad))
    policy.train()
    ids = torch.arange(3, 20)[None]
    policy(input_ids=ids, labels=ids).loss.backward()
    assert graphs == [False]
    assert calls == [1, 1 + recomputed]


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_freeze_knows_the_layers_of_every_architecture(name: str, folder_of: Folders, loaded: Loader) -> None:
    cfg = TuningConfig(finetuning_type="freeze", freeze_trainable_layers=1)
    model = freeze.apply(loaded(folder_of(name)), cfg, precision=BY_NAME["bf16"])
    names = trained_names(model)
    assert names and all(".1." in name for name in names)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"freeze_trainable_layers": 3}, "3 layers are asked for, the model has 2"),
        ({"freeze_trainable_layers": -3}, "3 layers are asked for"),
        ({"freeze_trainable_layers": 0}, "nothing would be trained"),
        (
            {"freeze_trainable_modules": ["mlpp"]},
            "freeze_trainable_modules: no module is named 'mlpp'; did you mean 'mlp'?",
        ),
        ({"freeze_extra_modules": ["embed"]}, "did you mean 'embed_tokens'?"),
    ],
    ids=str,
)
def test_refusals(options: dict, said: str, folder_of: Folders, loaded: Loader) -> None:
    cfg = TuningConfig(finetuning_type="freeze", **options)
    with pytest.raises(OptionError) as refusal:
        freeze.apply(loaded(folder_of("qwen2")), cfg, precision=BY_NAME["fp32"])
    assert said in str(refusal.value)


@pytest.mark.parametrize("method", [full, freeze, lora])
def test_exact_weights_come_back(method: object, folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    def fresh(seed: int) -> PreTrainedModel:
        torch.manual_seed(seed)
        return method.apply(loaded(folder_of("qwen3_tied")), TuningConfig(), precision=BY_NAME["bf16"])

    model = fresh(1)
    zoo.shake(model)
    tensors = save_trained_exact(model)
    assert set(tensors) == trained_names(model)
    save_file(tensors, tmp_path / "trained.safetensors")
    again = fresh(2)
    load_trained(again, tmp_path / "trained.safetensors")
    assert all(torch.equal(value, save_trained_exact(again)[name]) for name, value in tensors.items())
    name = min(tensors)
    for wrong in (
        {key: value for key, value in tensors.items() if key != name},
        {**tensors, "stranger": torch.zeros(1)},
        {**tensors, name: tensors[name].to(torch.bfloat16)},
        {**tensors, name: torch.zeros(3)},
    ):
        with pytest.raises(RunError, match="checkpoint"):
            restore_trained_exact(again, wrong)


@pytest.mark.parametrize("method", [full, lora])
def test_weights_that_are_not_finite_are_never_written(
    method: object, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    model = method.apply(loaded(folder_of("llama")), TuningConfig(), precision=BY_NAME["fp32"])
    name, weight = next((name, w) for name, w in model.named_parameters() if w.requires_grad and "layers.1" in name)
    weight.data.view(-1)[3] = float("inf")
    with pytest.raises(RunError) as refusal:
        save_weights(model, tmp_path / "out")
    assert name.replace(".default", "") in str(refusal.value)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("method", [full, lora])
def test_the_final_folder_has_all_to_talk_to_the_model(
    method: object, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    base = folder_of("qwen2")
    model = method.apply(loaded(base), TuningConfig(), precision=BY_NAME["fp32"])
    cfg = load.ModelConfig(model_name_or_path=str(base))
    tokenizer = load.load_tokenizer(load.find(cfg), cfg)
    own = tokenizer.chat_template
    template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    save_final(model, tokenizer, tmp_path, chat_template=template, stop_token_ids=[1, 2])
    assert tokenizer.chat_template == own
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == template == again.chat_template
    assert again.get_vocab() == tokenizer.get_vocab()
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [1, 2]


def test_an_invalid_generation_config_does_not_stop_saving(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    model = full.apply(loaded(folder_of("qwen2")), TuningConfig(), precision=BY_NAME["fp32"])
    model.generation_config.temperature = 0.6
    cfg = load.ModelConfig(model_name_or_path=str(folder_of("qwen2")))
    save_final(model, load.load_tokenizer(load.find(cfg), cfg), tmp_path, chat_template=None, stop_token_ids=[1])
    written = GenerationConfig.from_pretrained(tmp_path)
    assert (written.temperature, written.do_sample, written.eos_token_id) == (0.6, True, [1, 2])
