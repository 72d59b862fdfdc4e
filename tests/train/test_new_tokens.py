"""Tokens that are added: their rows begin as what they mean, are trained and saved, and nothing else of the vocabulary is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from tunesmith.config.model import ModelConfig
from tunesmith.export.command import export_command
from tunesmith.generate.chat import chat_command
from tunesmith.log import OptionError
from tunesmith.models import vocabulary
from tunesmith.models.load import load_tokenizer
from tunesmith.models.where import Source

Train = Callable[..., Path]
TALK = [
    {"instruction": "the cat <call> sat", "input": "", "output": "a mat flurbish <done>"},
    {"instruction": "seven <call>", "input": "", "output": "blue flurbish birds"},
]


@pytest.fixture
def new_words(tmp_path: Path) -> dict[str, object]:
    """Options of a run with a word and two control tokens that the vocabulary lacks, and rows that hold them."""
    (tmp_path / "talk.json").write_text(json.dumps(TALK), encoding="utf-8")
    (tmp_path / "meanings.yaml").write_text('"<done>": the end of the river\n', encoding="utf-8")
    return {
        "dataset": tmp_path / "talk.json",
        "add_tokens": "flurbish",
        "add_special_tokens": "<call>",
        "new_special_tokens_config": tmp_path / "meanings.yaml",
        "allow_special_tokens": True,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 6,
        "save_steps": 3,
    }


def grown(folder: Path, **options: object):
    cfg = ModelConfig(model_name_or_path=str(folder), **options)
    source = Source(str(folder), folder)
    tokenizer = load_tokenizer(source, cfg)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, tokenizer, vocabulary.grow(model, tokenizer, source, cfg, seed=1)


@pytest.mark.parametrize("how", ["desc_init", "noise_init", "desc_init_w_noise"])
def test_rows_begin_as_what_tokens_mean(how: str, tiny_model: Path, new_words: dict, tmp_path: Path) -> None:
    before = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    plain = AutoTokenizer.from_pretrained(tiny_model)
    options = {
        "add_tokens": ["flurbish", "a"],
        "new_special_tokens_config": str(new_words["new_special_tokens_config"]),
    }
    model, tokenizer, ids = grown(tiny_model, init_special_tokens=how, **options)
    assert ids == tokenizer.convert_tokens_to_ids(["flurbish", "<done>"]) == [600, 601]
    assert tokenizer.encode("a flurbish b").count(600) == 1
    for old, now in ((before.get_input_embeddings(), model.get_input_embeddings()), (before.lm_head, model.lm_head)):
        assert len(now.weight) == 640 and torch.equal(now.weight[:600], old.weight)
        torch.testing.assert_close(now.weight[602:], old.weight.mean(0).expand(38, -1))
        for id, meaning in ((600, "flurbish"), (601, "the end of the river")):
            pieces = plain.encode(meaning, add_special_tokens=False)
            expected = old.weight.mean(0) if how == "noise_init" else old.weight[pieces].mean(0)
            assert float((now.weight[id] - expected).std()) == pytest.approx(
                0 if how == "desc_init" else 32**-0.5, abs=0.05
            )


def test_resize_vocab_alone(tiny_model: Path, tmp_path: Path) -> None:
    assert grown(tiny_model, resize_vocab=True)[0].get_input_embeddings().num_embeddings == 600
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["flurbish"])
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _, ids = grown(tmp_path, resize_vocab=True)
    assert model.get_input_embeddings().num_embeddings == 640 and ids == []


def test_lora_trains_their_rows_alone(
    train: Train, new_words: dict, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("out", **new_words)
    tensors = load_file(folder / "adapter_model.safetensors")
    rows = {name: tensor for name, tensor in tensors.items() if "lora_" not in name}
    assert [tuple(tensor.shape) for tensor in rows.values()] == [(3, 32), (3, 32)]
    model, _, ids = grown(
        tiny_model,
        add_tokens=["flurbish"],
        add_special_tokens=["<call>"],
        new_special_tokens_config=str(new_words["new_special_tokens_config"]),
    )
    begun = {"embed_tokens": model.get_input_embeddings().weight[ids], "lm_head": model.lm_head.weight[ids]}
    for name, tensor in rows.items():
        assert not torch.allclose(tensor, begun["lm_head" if "lm_head" in name else "embed_tokens"], atol=1e-3)

    parted = train("parted", **new_words | {"max_steps": 3})
    train("parted", **new_words)
    other = load_file(parted / "adapter_model.safetensors")
    assert all(torch.equal(tensor, other[name]) for name, tensor in tensors.items())

    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    plain.resize_token_embeddings(640, mean_resizing=False)
    expected = logits(PeftModel.from_pretrained(plain, folder).eval(), ids)
    assert export_command([str(folder), "--export_dir", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.config.vocab_size == 640
    torch.testing.assert_close(logits(merged, ids), expected, atol=1e-4, rtol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").encode("flurbish<call>") == ids[:2]
    capsys.readouterr()
    assert chat_command([str(folder), "--prompt", "the flurbish", "--max_new_tokens", "3"]) == 0
    assert chat_command([str(tmp_path / "merged"), "--prompt", "the flurbish", "--max_new_tokens", "3"]) == 0


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, *ids, 9, 11]])).logits[..., :603]


def test_all_rows_may_be_trained(
    train: Train, new_words: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("out", additional_target="embed_tokens,lm_head", **new_words)
    assert load_file(folder / "adapter_model.safetensors")["base_model.model.lm_head.weight"].shape == (640, 32)
    assert export_command([str(folder), "--export_dir", str(tmp_path / "merged")]) == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.vocab_size == 640
    capsys.readouterr()
    train("further", adapter_name_or_path=folder, dataset=new_words["dataset"], max_steps=1)
    lost = f"warning: add_tokens: {folder} was trained with tokens that the tokenizer lacks: flurbish, <call>, <done>; name"
    assert lost in capsys.readouterr().err
    train("again", adapter_name_or_path=folder, **new_words | {"max_steps": 1})
    assert "that the tokenizer lacks" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [{"finetuning_type": "full"}, {"finetuning_type": "qlora"}, {"compute_type": "bf16"}]
)
def test_other_ways_to_train(options: dict, train: Train, new_words: dict, tiny_model: Path) -> None:
    folder = train("out", **new_words | options | {"num_train_epochs": 2})
    if options.get("finetuning_type") == "full":
        assert AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().num_embeddings == 640
    else:
        tensors = load_file(folder / "adapter_model.safetensors")
        assert sum("lora_" not in name for name in tensors) == 2


def test_weights_that_are_one_stay_one(train: Train, new_words: dict, tmp_path: Path) -> None:
    base = tmp_path / "tied"
    Qwen2ForCausalLM(Qwen2Config(**tiny._shape() | {"tie_word_embeddings": True})).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    folder = train("out", model_name_or_path=base, **new_words)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert [name for name in tensors if "lora_" not in name and "embed_tokens" not in name] == []
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain.resize_token_embeddings(640, mean_resizing=False)
    expected = logits(PeftModel.from_pretrained(plain, folder).eval(), [600, 601, 602])
    assert export_command([str(folder), "--export_dir", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.lm_head.weight is merged.get_input_embeddings().weight
    torch.testing.assert_close(logits(merged, [600, 601, 602]), expected, atol=1e-4, rtol=1e-3)


def test_mistakes(train: Train, new_words: dict, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("- <done>\n", encoding="utf-8")
    for path, reason in (("odd.yaml", "a token and its description"), ("none.yaml", "can't be read")):
        with pytest.raises(OptionError, match=reason):
            train("out", **new_words | {"new_special_tokens_config": tmp_path / path})
    with pytest.raises(OptionError, match="lm_head cannot have LoRA beside rows of new tokens"):
        train("out", lora_target="lm_head", **new_words)
