"""`dropout_rate` reaches every dropout of a model, says which, and is refused where there is none."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tunesmith.log import OptionError
from tunesmith.models import dropout

Loader = Callable[..., PreTrainedModel]
Folders = Callable[[str], Path]


def twice(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(3, 40)[None]
    torch.manual_seed(1)
    return model(input_ids=ids).logits, model(input_ids=ids).logits


@pytest.mark.parametrize(
    ("name", "where", "count"),
    [
        ("llama", "attention_dropout", 2),
        ("gpt2", "attn_dropout, drop, dropout, resid_dropout", 7),
        ("gpt_neox", "attention_dropout, emb_dropout, post_attention_dropout, post_mlp_dropout", 7),
        ("phi3", "attention_dropout, resid_attn_dropout, resid_mlp_dropout", 6),
        ("opt", "dropout", 5),
    ],
)
def test_every_dropout_is_set(
    name: str, where: str, count: int, folder_of: Folders, loaded: Loader, capsys: pytest.CaptureFixture[str]
) -> None:
    model = loaded(folder_of(name), dropout_rate=0.25)
    assert f"note: dropout_rate: 0.25 for {where}, {count} in all\n" in capsys.readouterr().err
    first, second = twice(model)
    assert not torch.allclose(first, second, atol=1e-4)
    kept = loaded(folder_of(name), dropout_rate=0.0)
    assert torch.equal(*twice(kept))
    assert torch.equal(zoo.logits(model), zoo.logits(kept)), "it changed what is computed without dropout"


def test_only_training_has_it_and_not_written_is_the_models_own(folder_of: Folders, loaded: Loader) -> None:
    assert torch.equal(*twice(loaded(folder_of("llama"))))
    assert torch.equal(*twice(loaded(folder_of("llama"), dropout_rate=0.5, trainable=False)))
    assert not torch.equal(*twice(loaded(folder_of("gpt2"))))


def test_a_model_without_one_is_refused() -> None:
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=0, num_attention_heads=1))
    with pytest.raises(OptionError, match="dropout_rate: a model of type llama has no dropout; leave it out"):
        dropout.set_all(model, 0.1)
