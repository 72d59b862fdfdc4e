"""LoRA: step 0 is the base model, what is saved opens with plain peft, and what does not go is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith.config.tuning import TuningConfig
from tunesmith.log import ModelError, OptionError
from tunesmith.models.precision import BY_NAME
from tunesmith.models.save import save_weights
from tunesmith.models.tuning import adapters, lora
from tunesmith.models.tuning.count import trainable
from tunesmith.models.where import Source

FP32 = BY_NAME["fp32"]
Loader = Callable[..., PreTrainedModel]
Folders = Callable[[str], Path]


def tuned(model: PreTrainedModel, onto: tuple[Path, ...] = (), precision: str = "fp32", **options: object) -> PeftModel:
    torch.manual_seed(1)
    cfg = TuningConfig(**{"lora_rank": 4, **options})
    return lora.apply(model, cfg, precision=BY_NAME[precision], adapters=[Source(str(path), path) for path in onto])


def plain(base: Path, adapter: Path, dtype: torch.dtype = torch.float32, attention: str = "eager") -> PeftModel:
    """The adapter as someone without tunesmith opens it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation=attention)
    return PeftModel.from_pretrained(model, adapter)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_step_0_is_the_base_and_the_saved_adapter_opens_elsewhere(
    name: str, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    base = folder_of(name)
    model = loaded(base)
    before = zoo.logits(model)
    adapted = tuned(model)
    assert torch.equal(zoo.logits(adapted), before)
    zoo.shake(adapted)
    after = zoo.logits(adapted)
    assert not torch.allclose(after, before, atol=1e-3)
    save_weights(adapted, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert config["inference_mode"] is True
    same(zoo.logits(plain(base, tmp_path, attention=model.config._attn_implementation)), after)


@pytest.mark.parametrize(
    "options",
    [
        {"lora_init": "normal"},
        {"lora_init": "zero"},
        {"lora_init": "orthogonal"},
        {"use_rslora": True},
        {"use_dora": True},
        {"additional_target": ["embed_tokens", "lm_head"]},
        {"additional_target": ["norm"]},
        {"lora_target": ["embed_tokens", "q_proj"]},
        {"lora_target": ["lm_head", "attention"]},
        {"lora_dropout": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["qwen2", "qwen3_tied"])
def test_every_kind_starts_at_the_base_and_opens_elsewhere(
    name: str, options: dict, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    base = folder_of(name)
    model = loaded(base)
    if "tied" in name and {"embed_tokens", "lm_head"} & set(options.get("lora_target", ())):
        with pytest.raises(OptionError, match="is one weight with"):
            tuned(model, **options)
        return
    before = zoo.logits(model)
    adapted = tuned(model, **options)
    assert torch.equal(zoo.logits(adapted), before)
    zoo.shake(adapted)
    save_weights(adapted, tmp_path)
    same(zoo.logits(plain(base, tmp_path, attention="sdpa")), zoo.logits(adapted))


@pytest.mark.parametrize(
    "options", [{"lora_init": "pissa"}, {"lora_init": "pissa", "pissa_iter": -1}, {"lora_init": "olora"}]
)
@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
@pytest.mark.parametrize("rslora", [False, True])
def test_starts_from_the_base_load_on_the_unchanged_base(
    name: str, options: dict, rslora: bool, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    base = folder_of(name)
    if (name, options["lora_init"]) == ("gpt2", "olora"):
        with pytest.raises(OptionError, match="olora cannot start a module of type Conv1D"):
            tuned(loaded(base), **options)
        return
    model = loaded(base)
    before = zoo.logits(model)
    adapted = tuned(model, use_rslora=rslora, **options)
    same(zoo.logits(adapted), before)
    zoo.shake(adapted, 0.02)
    after = zoo.logits(adapted)
    save_weights(adapted, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 8
    same(zoo.logits(plain(base, tmp_path, attention="sdpa")), after)


def test_bf16_base_with_fp32_adapters(folder_of: Folders, loaded: Loader) -> None:
    model = loaded(folder_of("qwen2"), dtype=torch.bfloat16)
    before = zoo.logits(model)
    adapted = tuned(model, precision="bf16")
    assert torch.equal(zoo.logits(adapted), before)
    with torch.autocast("cpu", torch.bfloat16):
        assert zoo.logits(adapted).isfinite().all()
    types = {weight.requires_grad: weight.dtype for weight in adapted.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    pure = tuned(loaded(folder_of("qwen2"), dtype=torch.bfloat16), precision="pure_bf16")
    assert {weight.dtype for weight in pure.parameters()} == {torch.bfloat16}


def test_the_seed_decides_the_start(folder_of: Folders, loaded: Loader) -> None:
    first, second = (dict(tuned(loaded(folder_of("llama"))).named_parameters()) for _ in range(2))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_count(folder_of: Folders, loaded: Loader) -> None:
    adapted = tuned(loaded(folder_of("qwen2")), lora_target=["q_proj", "down_proj"])
    trained, total = trainable(adapted)
    assert trained == 2 * 4 * ((32 + 32) + (64 + 32))
    assert total == trained + sum(p.numel() for p in loaded(folder_of("qwen2")).parameters())


@pytest.mark.parametrize(
    ("name", "target", "modules"),
    [
        ("qwen2", "all", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("qwen2", "attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("qwen2", "feedforward", {"gate_proj", "up_proj", "down_proj"}),
        ("qwen2", "attention,up_proj", {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj"}),
        ("qwen2", "layers.1.mlp.up_proj", {"layers.1.mlp.up_proj"}),
        ("qwen2", r".*\.0\..*_proj", None),
        ("gpt2", "attention", {"attn.c_attn", "attn.c_proj"}),
        ("gpt2", "feedforward", {"mlp.c_fc", "mlp.c_proj"}),
        ("gpt_neox", "attention", {"query_key_value", "dense"}),
        ("phi3", "all", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("opt", "feedforward", {"fc1", "fc2"}),
    ],
)
def test_targets(name: str, target: str, modules: set[str] | None, folder_of: Folders, loaded: Loader) -> None:
    adapted = tuned(loaded(folder_of(name)), lora_target=target.split(","))
    found = adapted.peft_config["default"].target_modules
    if modules is not None:
        assert set(found) == modules
    else:
        assert len(found) == 7 and all(one.startswith("layers.0.") or ".0." in one for one in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lora_target": ["q_prj"]}, "did you mean 'q_proj'"),
        ({"lora_target": ["q_prj"]}, "groups: all, attention, feedforward"),
        ({"lora_target": ["norm"]}, "no module is named 'norm'"),
        ({"lora_target": [".*q_prj"]}, "matches no module"),
        ({"lora_target": ["(q_proj"]}, "is no regular expression"),
        ({"lora_target": []}, "empty"),
        ({"additional_target": ["embed_token"]}, "additional_target: no module is named 'embed_token'; did you mean"),
        ({"lora_init": "pissa", "lora_rank": 33}, "at most the smallest side"),
        ({"lora_init": "pissa", "lora_target": ["embed_tokens"]}, "cannot start a module of type Embedding"),
        ({"lora_init": "pissa", "use_dora": True}, "use_dora"),
    ],
    ids=str,
)
def test_refusals(options: dict, said: str, folder_of: Folders, loaded: Loader) -> None:
    with pytest.raises(OptionError) as refusal:
        tuned(loaded(folder_of("qwen2")), **options)
    assert said in str(refusal.value)


def make_adapter(base: Path, folder: Path, loaded: Loader, **options: object) -> Path:
    adapted = tuned(loaded(base), **options)
    zoo.shake(adapted)
    save_weights(adapted, folder)
    return folder


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_going_on_with_an_adapter(name: str, folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    base = folder_of(name)
    first = make_adapter(base, tmp_path / "a", loaded, lora_rank=3, lora_alpha=5.0)
    adapted = tuned(loaded(base), (first,))
    assert trainable(adapted)[0] > 0
    same(zoo.logits(adapted), zoo.logits(plain(base, first, attention="sdpa")))
    save_weights(adapted, tmp_path / "again")
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("a", "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "qwen3_tied"])
@pytest.mark.parametrize("fresh", [False, True])
def test_adapters_on_adapters_are_saved_to_fit_the_base(
    name: str, fresh: bool, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    base = folder_of(name)
    one = make_adapter(base, tmp_path / "one", loaded, lora_target=["attention"], lora_alpha=3.0)
    two = make_adapter(base, tmp_path / "two", loaded, lora_rank=2, use_rslora=True)
    adapted = tuned(loaded(base), (one, two), create_new_adapter=fresh, lora_target=["feedforward"])
    zoo.shake(adapted)
    after = zoo.logits(adapted)
    save_weights(adapted, tmp_path / "three")
    same(zoo.logits(plain(base, tmp_path / "three", attention="sdpa")), after)
    with pytest.raises(ModelError, match="already holds"):
        tuned(loaded(base), (one, tmp_path / "three"))


def damaged(adapter: Path, folder: Path, how: str) -> Path:
    folder.mkdir()
    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    name = next(key for key in sorted(tensors) if "lora_A" in key)
    if how == "missing":
        del tensors[name]
    if how == "unexpected":
        tensors[name.replace("layers.0", "layers.7")] = tensors[name].clone()
    if how == "shape":
        tensors[name] = torch.zeros(4, 5)
    if how == "not finite":
        tensors[name][0, 0] = float("nan")
    if how == "type":
        config["peft_type"] = "IA3"
        for key in set(config) - {"peft_type", "base_model_name_or_path", "task_type", "target_modules"}:
            del config[key]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if how != "weights":
        save_file(tensors, folder / "adapter_model.safetensors")
    if how == "truncated":
        whole = (folder / "adapter_model.safetensors").read_bytes()
        (folder / "adapter_model.safetensors").write_bytes(whole[:-10])
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "lacks 1 tensors: base_model.model.model.layers.0"),
        ("unexpected", "has no place for 1 tensors"),
        ("shape", "size mismatch"),
        ("not finite", "not finite"),
        ("type", "only LoRA is built"),
        ("weights", "no adapter weights"),
        ("truncated", "truncated"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    how: str, said: str, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    adapter = make_adapter(folder_of("qwen2"), tmp_path / "good", loaded)
    with pytest.raises(ModelError) as refusal:
        tuned(loaded(folder_of("qwen2")), (damaged(adapter, tmp_path / "bad", how),))
    assert said in str(refusal.value)


def test_an_adapter_of_another_architecture_is_refused(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    adapter = make_adapter(folder_of("qwen2"), tmp_path / "a", loaded)
    with pytest.raises(ModelError, match="does not fit"):
        tuned(loaded(folder_of("gpt2")), (adapter,))


def test_dora_cannot_lie_under_another_adapter(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    adapter = make_adapter(folder_of("qwen2"), tmp_path / "a", loaded, use_dora=True)
    with pytest.raises(ModelError, match="use_dora cannot be under another"):
        tuned(loaded(folder_of("qwen2")), (adapter,), create_new_adapter=True)


@pytest.mark.parametrize("name", ["qwen2", "qwen3_tied"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"additional_target": ["embed_tokens"]}], ids=str)
def test_merging_and_attaching(name: str, options: dict, folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    base = folder_of(name)
    one = make_adapter(base, tmp_path / "one", loaded, **options)
    two = make_adapter(base, tmp_path / "two", loaded, lora_rank=2, lora_target=["up_proj"])
    sources = [Source(str(path), path) for path in (one, two)]
    expected = zoo.logits(plain(base, one, attention="sdpa"))
    merged = adapters.merge(loaded(base), sources[:1])
    same(zoo.logits(merged), expected)
    assert isinstance(merged, PreTrainedModel)
    same(zoo.logits(adapters.attach(loaded(base), sources[:1])), expected)
    same(zoo.logits(adapters.attach(loaded(base), sources)), zoo.logits(adapters.merge(loaded(base), sources)))
    save_weights(merged, tmp_path / "merged")
    same(zoo.logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected)


def test_merging_never_parts_tied_weights(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    base = folder_of("qwen3_tied")
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    )
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="lm_head alone"):
        adapters.merge(loaded(base), [Source(str(tmp_path), tmp_path)])


def test_pickled_adapters_load_and_run_nothing(folder_of: Folders, loaded: Loader, tmp_path: Path) -> None:
    base = folder_of("qwen2")
    adapter = make_adapter(base, tmp_path / "a", loaded)
    expected = zoo.logits(plain(base, adapter, attention="sdpa"))
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    same(zoo.logits(adapters.attach(loaded(base), [Source("a", adapter)])), expected)

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors"):
        adapters.attach(loaded(base), [Source("a", adapter)])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "mixtral"])
def test_checkpointing_changes_no_gradient(name: str, folder_of: Folders, loaded: Loader) -> None:
    gradients = []
    for checkpointing in (False, True):
        adapted = tuned(loaded(folder_of(name), gradient_checkpointing=checkpointing), lora_init="pissa")
        ids = torch.arange(3, 20)[None]
        torch.manual_seed(9)
        adapted(input_ids=ids, labels=ids).loss.backward()
        gradients.append({n: weight.grad for n, weight in adapted.named_parameters() if weight.requires_grad})
    assert all(weight is not None and weight.any() for weight in gradients[0].values())
    for key, weight in gradients[0].items():
        torch.testing.assert_close(weight, gradients[1][key])


@pytest.mark.parametrize("again", [False, True], ids=["new", "gone on with"])
def test_what_lies_below_the_adapters_needs_no_gradient_where_layers_are_recomputed(
    again: bool, folder_of: Folders, loaded: Loader, tmp_path: Path
) -> None:
    model, onto = loaded(folder_of("qwen2"), gradient_checkpointing=True), ()
    if again:
        save_weights(tuned(loaded(folder_of("qwen2"))), tmp_path)
        onto = (tmp_path,)
    found: list[bool] = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, made: found.append(made.requires_grad))
    adapted = tuned(model, onto)
    adapted.train()
    ids = torch.arange(3, 20)[None]
    adapted(input_ids=ids, labels=ids).loss.backward()
    assert found == [False]
    assert all(weight.grad is not None for weight in adapted.parameters() if weight.requires_grad)
