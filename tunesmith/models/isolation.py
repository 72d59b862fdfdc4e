"""Whether samples that lie in one row of tokens stay apart in a model.  Knows models; knows no data and no loss."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.log import ModelError

TOKENS = 8
"""Of each of the two samples that are tried."""

LEAK = 1e-2
"""Share of a change in one sample that may show in another one: rounding, in kernels that choose their path by content."""


@torch.no_grad()
def require_isolation(model: PreTrainedModel) -> None:
    """Raise ModelError unless two samples in one row, told apart by positions that start again, cannot see each other.

    Runs the model on two rows that differ in the first sample alone: the second one's logits must not move.  Leaves
    random states and mode alone."""
    was_training = model.training
    model.eval()
    ids = torch.arange(2 * TOKENS, device=model.device)[None] % model.get_input_embeddings().weight.shape[0]
    other = torch.cat([ids[:, :TOKENS].flip(1), ids[:, TOKENS:]], dim=1)
    positions = (torch.arange(2 * TOKENS, device=model.device) % TOKENS)[None]
    moved = (_logits(model, ids, positions) - _logits(model, other, positions)).abs()
    model.train(was_training)
    if float(moved[:, TOKENS:].max()) > LEAK * float(moved[:, :TOKENS].max()):
        raise ModelError(
            f"packing: {type(model).__name__} lets samples in one row see each other; "
            "set packing: false, or contaminated to accept it"
        )


def _logits(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=None, position_ids=positions, use_cache=False).logits.float()
