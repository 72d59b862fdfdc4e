"""`rope_scaling` stretches positions as far as rows need, leaves a trace in the config, and is refused where it can't."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from tunesmith.log import OptionError
from tunesmith.models import positions
from tunesmith.models.save import save_weights

Folders = Callable[[str], Path]
KINDS = ("linear", "dynamic", "yarn", "llama3")


def config_of(folder: Path) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(folder)


def model_of(folder: Path, kind: str, longest: int) -> PreTrainedModel:
    config = config_of(folder)
    positions.stretch(config, kind, longest, tell=False)
    model = AutoModelForCausalLM.from_pretrained(folder, config=config)
    if kind == "dynamic":
        positions.forget_lengths(model)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_factor_is_what_rows_need_rounded_up(kind: str, folder_of: Folders, capsys) -> None:
    config = config_of(folder_of("llama"))
    positions.stretch(config, kind, 300, tell=True)
    assert config.rope_parameters["rope_type"] == kind and config.rope_parameters["factor"] == 3.0
    assert config.max_position_embeddings == (128 if kind == "dynamic" else 384)
    if kind in ("yarn", "llama3"):
        assert config.rope_parameters["original_max_position_embeddings"] == 128
    assert f"note: rope_scaling: {kind} stretches the model's 128 positions 3 times\n" in capsys.readouterr().err


def test_linear_divides_positions(folder_of: Folders) -> None:
    plain, stretched = (
        AutoModelForCausalLM.from_pretrained(folder_of("llama")),
        model_of(folder_of("llama"), "linear", 256),
    )
    ids = torch.arange(3, 12)[None]
    places = torch.arange(9)[None]
    with torch.no_grad():
        found = stretched(input_ids=ids, position_ids=2 * places).logits
        torch.testing.assert_close(found, plain(input_ids=ids, position_ids=places).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_the_saved_model_has_it_and_is_not_stretched_twice(
    kind: str, folder_of: Folders, loaded, tmp_path: Path
) -> None:
    source = folder_of("llama")
    model = model_of(source, kind, 256)
    assert not torch.allclose(zoo.logits(model), zoo.logits(AutoModelForCausalLM.from_pretrained(source)), atol=1e-6)
    save_weights(model, tmp_path)
    again = model_of(tmp_path, kind, 256)
    assert again.config.rope_parameters["factor"] == 2.0
    assert torch.equal(zoo.logits(again), zoo.logits(model))
    with pytest.raises(OptionError, match=rf"stretched already \({kind}\), to 256; cutoff_len may be at most 256"):
        model_of(tmp_path, kind, 300)


def test_dynamic_angles_depend_on_what_is_read_alone(folder_of: Folders) -> None:
    model = model_of(folder_of("llama"), "dynamic", 256)
    short, long = torch.arange(3, 60)[None], torch.arange(3, 203)[None]
    with torch.no_grad():
        first, far = model(input_ids=short).logits, model(input_ids=long).logits
        assert torch.equal(model(input_ids=short).logits, first)
        model(input_ids=torch.arange(3, 253)[None])
        assert torch.equal(model(input_ids=long).logits, far)
        plain = AutoModelForCausalLM.from_pretrained(folder_of("llama"))
        assert torch.equal(plain(input_ids=short).logits, first)
        assert not torch.allclose(plain(input_ids=long).logits, far, atol=1e-6)
    base = 10_000 * (2 * 200 / 128 - 1) ** (8 / 6)
    rotary = model.model.rotary_emb
    model(input_ids=long)
    assert math.isclose(float(rotary.inv_freq[1]), base ** (-2 / 8), rel_tol=1e-5)


def test_what_needs_no_stretching_is_said(folder_of: Folders, capsys) -> None:
    config = config_of(folder_of("llama"))
    before = config.to_dict()
    positions.stretch(config, "yarn", 128, tell=True)
    assert config.to_dict() == before
    said = "warning: rope_scaling: has no effect: cutoff_len 128 fits into the model's 128 positions\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_models_without_rotary_positions_are_refused(name: str, folder_of: Folders) -> None:
    with pytest.raises(OptionError, match=f"a model of type {name} has no rotary positions to stretch"):
        positions.stretch(config_of(folder_of(name)), "linear", 300, tell=True)


def test_rows_beyond_learned_positions_are_refused_and_beyond_rotary_ones_warned_of(tiny_model, capsys):
    learned = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=8, n_layer=1, n_head=2, n_positions=32))
    positions.check_reach(learned, 32)
    with pytest.raises(
        OptionError, match="cutoff_len: rows have up to 33 tokens, and the model has 32 positions; 32 fits"
    ):
        positions.check_reach(learned, 33)
    rotary = AutoModelForCausalLM.from_pretrained(tiny_model)
    positions.check_reach(rotary, 512)
    assert "cutoff_len" not in capsys.readouterr().err
    positions.check_reach(rotary, 513)
    assert "warning: cutoff_len: rows have up to 513 tokens" in capsys.readouterr().err
