"""Lets a model know more tokens: rows of its embeddings and its head, which begin as what the tokens mean.  Knows models
and tokenizers; knows no tuning method."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith import log
from tunesmith.config.model import ModelConfig
from tunesmith.log import ModelError
from tunesmith.models import new_tokens
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.models.weights import quiet
from tunesmith.models.where import Source

MULTIPLE = 64
"""Rows are added up to a multiple of this, for which matrix products are made."""


def grow(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Source, cfg: ModelConfig, *, seed: int
) -> list[int]:
    """Give the model a row for each id of its tokenizer, where options ask for it; returns the ids of new tokens.

    A new token's row begins as the mean of the rows of what it means (`init_special_tokens`), in the embeddings and in
    the head.  `source`: where the model was read; `seed`: of the noise.
    """
    asked = new_tokens.asked_for(cfg)
    if not asked and not cfg.resize_vocab:
        return []
    with log.muted():
        before = load_tokenizer(source, cfg.model_copy(update=NOTHING_NEW))
    known = before.get_vocab()
    for token in asked:
        if token.text in known:
            log.note("add_tokens", f"{token.text!r} is in the vocabulary already")
    new = [token for token in asked if token.text not in known]
    ids = [int(tokenizer.convert_tokens_to_ids(token.text)) for token in new]
    wanted, had = max(tokenizer.get_vocab().values()) + 1, len(_ends(model)[0])
    if cfg.resize_vocab and not asked and wanted <= had:
        log.warn("resize_vocab", f"has no effect: the tokenizer's {wanted} tokens fit into the model's {had} rows")
    reach(model, wanted)
    pieces = [
        [] if cfg.init_special_tokens == "noise_init" else before.encode(token.meaning, add_special_tokens=False)
        for token in new
    ]
    if new:
        noise = cfg.init_special_tokens != "desc_init"
        for weight in _ends(model):
            _begin(weight, ids, pieces, before_rows=max(known.values()) + 1, seed=seed if noise else None)
        log.note("add_tokens", f"{len(new)} new tokens, from id {min(ids)} on")
    return ids


NOTHING_NEW: dict[str, object] = {"add_tokens": [], "add_special_tokens": [], "new_special_tokens_config": None}


def reach(model: PreTrainedModel, rows: int) -> None:
    """Give the model at least so many rows; those that it lacks begin as the mean of those that it has."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    had = embeddings.num_embeddings
    if rows <= had:
        return
    try:
        with quiet():
            model.resize_token_embeddings(rows, pad_to_multiple_of=MULTIPLE, mean_resizing=False)
    except (NotImplementedError, ValueError) as fault:
        raise ModelError(f"resize_vocab: the model's vocabulary cannot grow: {fault}") from fault
    with torch.no_grad():
        for weight in _ends(model):
            weight[had:] = weight[:had].float().mean(0).to(weight.dtype)
    log.note("resize_vocab", f"the model's {had} rows became {len(_ends(model)[0])}")


@torch.no_grad()
def _begin(
    weight: Tensor, ids: Sequence[int], pieces: Sequence[Sequence[int]], *, before_rows: int, seed: int | None
) -> None:
    """Set the rows `ids` of a matrix [rows, width]: each to the mean of the rows of its pieces, or of all there were."""
    old = weight[: min(before_rows, len(weight))].float()
    draw = torch.Generator().manual_seed(0 if seed is None else seed)
    for id, parts in zip(ids, pieces, strict=True):
        row = (old[list(parts)] if parts else old).mean(0)
        if seed is not None:
            noise = torch.randn(weight.shape[1], generator=draw) / weight.shape[1] ** 0.5
            row = row + noise.to(row.device)
        weight[id] = row.to(weight.dtype)


def _ends(model: PreTrainedModel) -> list[Tensor]:
    """The weights of the embeddings and of the head; one where they are one."""
    found: dict[int, Tensor] = {}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if isinstance(module, nn.Embedding | nn.Linear):
            found[id(module.weight)] = module.weight
    return list(found.values())
