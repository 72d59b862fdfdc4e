"""A step is traced with any optimizer of the catalog, and keeps of it what the real one keeps after a step."""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoConfig, AutoModelForCausalLM, MixtralConfig

from tunesmith import catalog, log
from tunesmith.config.schema import Config
from tunesmith.log import MissingExtra
from tunesmith.models.precision import BY_NAME
from tunesmith.optim import build
from tunesmith.train.foretelling.traced import trace

FP32 = BY_NAME["fp32"]


def real_bytes(cfg: Config, config: AutoConfig) -> int:
    """Of the tensors that the optimizer keeps after it has moved the model once; one that weights share counts once."""
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = catalog.find("tuning", cfg.tuning.finetuning_type)(base, cfg.tuning, precision=FP32)
    optimizer = build.build(model, cfg.optim)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.randn_like(weight)
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    kept = {id(held): held for each in optimizer.state.values() for held in each.values() if torch.is_tensor(held)}
    return sum(bytes_of(held) for held in kept.values())


def bytes_of(held: torch.Tensor) -> int:
    """Also of one that is made of others, as torchao's are."""
    if is_traceable_wrapper_subclass(held):
        return sum(bytes_of(vars(held)[name]) for name in held.__tensor_flatten__()[0])
    return held.nbytes


@pytest.mark.filterwarnings("ignore")  # paged memory is a GPU's
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("name", {catalog.OPTIMIZERS[name]: name for name in catalog.names("optimizer")}.values())
def test_every_optimizer(name: str, kind: str, tiny_model: Path) -> None:
    try:
        catalog.require("optimizer", name)
    except MissingExtra:
        pytest.skip("its package is not installed")
    wider = {"hidden_size": 160, "intermediate_size": 320}  # than what is tried in the weights' place
    config = AutoConfig.from_pretrained(tiny_model, **wider)
    cfg = Config.model_validate({"tuning": {"finetuning_type": kind}, "optim": {"optim": name}})
    found = trace(cfg, config, FP32, [16, 12], places=20, gpu=False)
    with log.muted():
        real = real_bytes(cfg, config)
    blocks = name in ("adamw_torch_8bit", "adamw_torch_4bit")  # of numbers, each with a table of its own
    assert found.optimizer == pytest.approx(real, rel=0.1 if blocks else 0)
    assert real > 0 or name == "sgd"
    assert found.to_come >= found.optimizer + 4 * found.trained


def test_experts_are_traced_in_any_format_and_each_row_counts_once() -> None:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}  # fmt: skip
    cfg = Config.model_validate({"tuning": {"finetuning_type": "full"}})
    found = [
        trace(cfg, MixtralConfig(**shape | more), FP32, [16], places=8, gpu=True)
        for more in ({}, {"num_local_experts": 8})
    ]
    each = 2 * 16 * 2 * 3 * 32 * 64 * 3  # two layers, 16 tokens, two experts a token, three matrices, three passes
    router = 2 * 16 * 32 * 4 * 3 * 2
    assert found[1].operations - found[0].operations == router, "more experts to choose from are no more work"
    assert found[0].operations > 2 * each and found[1].trained > found[0].trained
