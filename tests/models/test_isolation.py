"""A model that lets packed samples see each other is refused; one that does not is left as it was."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from tunesmith.log import ModelError
from tunesmith.models.isolation import require_isolation


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_that_restarts_with_positions_may_be_packed(tiny_model: Path, attention: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation=attention).train()
    state = torch.get_rng_state()
    require_isolation(model)
    assert model.training and torch.equal(torch.get_rng_state(), state)


def test_a_model_whose_state_runs_on_is_refused() -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4, intermediate_size=32)
    with pytest.raises(ModelError, match="packing: MambaForCausalLM lets samples in one row see each other"):
        require_isolation(MambaForCausalLM(config))
