"""A causal language model that is asked only for what is trained: hidden states where a token is predicted, not logits
everywhere; rows behind one another, not padded.  A trial decides whether a model can be asked so.  Knows models and the
loss from hidden states; knows no stage."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.losses.linear import Before, linear_cross_entropy, linear_loss, loss_of_logits
from tunesmith.losses.lm import cross_entropy
from tunesmith.losses.tokens import TokenLoss
from tunesmith.models import flex, ragged
from tunesmith.models.neftune import Noise

TRIED = (5, 7)
"""Tokens of the two rows that a trial is made with."""

ALIKE = 3
"""How many of them the two begin with alike, where that is tried."""

WITHIN: dict[str, Callable[[], None]] = {ragged.NAME: ragged.register, flex.NAME: flex.register}
"""Attention within each row, by Transformers' name -> what makes it known there."""

ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}
"""How far two ways to compute a token's logits may part, root mean square, as a share of the logits' spread.  What a missing
part of an architecture or a leak between rows changes is of the order of the spread itself, 0.4 of it at the least; rounding
in bf16 0.02 with 24 layers.  A mean, because the largest of a large vocabulary's logits parts four times as far."""


PLACES_AT_ONCE = 1024
"""Places whose logits are whole at one time, where the likeliest tokens are asked for."""


@dataclass(frozen=True, slots=True)
class Head:
    """How hidden states become logits: a linear map, a factor, and a soft limit."""

    linear: nn.Linear
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., vocabulary] of `hidden` [..., width]."""
        return self.shaped(self.linear(hidden))

    def shaped(self, logits: Tensor) -> Tensor:
        """What the linear map gives, scaled and limited."""
        logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


@dataclass(slots=True)
class Predictions:
    """What a model says at the places it was asked about."""

    at: Tensor
    """With a head: hidden states [places, width]; without: logits [places, vocabulary]."""
    head: Head | None
    loss: Callable[..., Tensor] = linear_cross_entropy
    """How the loss is computed with a head; called as `linear_cross_entropy` is."""
    multiple_of: int = 1
    """Of what the number of places is made a multiple for it, by places that count nothing."""

    def cross_entropy(self, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum of -log p(target) over the places, each times its weight; shape [].  `targets` int64 [places], `weights`
        float32 [places]."""
        if self.head is None:
            return cross_entropy(self.at, targets, weights)
        linear = self.head.linear
        at, targets, weights = self._even(targets, weights)
        return self.loss(
            at,
            linear.weight,
            targets,
            bias=linear.bias,
            weights=weights,
            scale=self.head.scale,
            softcap=self.head.softcap,
        )

    def cost(
        self, each: TokenLoss, targets: Tensor, weights: Tensor | None = None, before: "Predictions | None" = None
    ) -> Tensor:
        """Sum of the loss `each` over the places, otherwise as `cross_entropy`.  `before`: what the model said at the same
        places before it was tuned, for losses that compare."""
        compared = None if before is None else before.logits(self._missing)
        if self.head is None:
            return loss_of_logits(each, self.at, targets, weights=weights, before=compared)
        linear = self.head.linear
        at, targets, weights = self._even(targets, weights)
        return linear_loss(
            each,
            at,
            linear.weight,
            targets,
            bias=linear.bias,
            weights=weights,
            scale=self.head.scale,
            softcap=self.head.softcap,
            before=compared,
        )

    @property
    def _missing(self) -> int:
        """Places that are missing for a multiple."""
        return 0 if self.head is None else -len(self.at) % self.multiple_of

    def _even(self, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Hidden states, targets and weights, behind them those of the missing places."""
        more = self._missing
        if not more:
            return self.at, targets, weights
        counts = torch.ones(len(targets), device=targets.device) if weights is None else weights
        return F.pad(self.at, (0, 0, 0, more)), F.pad(targets, (0, more)), F.pad(counts, (0, more))

    def logits(self, more: int = 0) -> Before:
        """Places from where to where -> their logits [places, vocabulary], made when they are asked for, in the format of
        the hidden states.  `more`: places behind them of which anything may be said."""
        if self.head is None:
            return self.at.__getitem__
        head, linear = self.head, self.head.linear
        weight = linear.weight.detach().to(self.at.dtype)
        bias = None if linear.bias is None else linear.bias.detach().to(self.at.dtype)
        at = F.pad(self.at, (0, 0, 0, more)) if more else self.at
        return lambda part: head.shaped(F.linear(at[part], weight, bias).float())

    @torch.no_grad()
    def hits(self, targets: Tensor) -> Tensor:
        """How many of `targets`, int64 [places], are the likeliest token at their place; int64 []."""
        likeliest = [
            (part if self.head is None else self.head.logits(part)).argmax(-1) for part in self.at.split(PLACES_AT_ONCE)
        ]
        return (torch.cat(likeliest) == targets).sum() if likeliest else targets.new_zeros(())


@dataclass(slots=True)
class _Shared:
    """The one of a trial; see `ragged.Shared`."""

    before: Sequence[int]
    keys: Tensor
    bounds: Tensor
    longest: int


class Predictor(nn.Module):
    """Asks a model.  `ragged`: its rows come behind one another, with their bounds; `shares`: what rows begin with alike may
    come once; `multiple_of`: of what the number of tokens behind one another, and of those in a row's own products, is made a
    multiple.  `loss` as in Predictions."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        head: Head | None,
        *,
        ragged: bool,
        shares: bool = False,
        multiple_of: int = 1,
        loss: Callable[..., Tensor] = linear_cross_entropy,
    ):
        super().__init__()
        self.few_sizes = False
        """Whether it is trained on batches that are filled up to few sizes."""
        self.model, self.ragged, self.shares, self.multiple_of, self.loss = model, ragged, shares, multiple_of, loss
        causal = _causal(model)
        # In a tuple, since weights must not count twice.
        self._asked = (causal if head is None else causal.get_decoder(), head)
        self._noise: Noise | None = None

    def add_noise(self, alpha: float) -> None:
        """NEFTune's noise on the embeddings from now on, in training mode."""
        self._noise = Noise(alpha, _causal(self.model).get_input_embeddings())

    @torch.no_grad()
    def told(self, *args: Any, **kwargs: Any) -> Predictions:
        """What the model says; arguments as of a call.  Keeps nothing for a backward pass."""
        return self.forward(*args, **kwargs)

    def before_tuning(self, *args: Any, **kwargs: Any) -> Predictions:
        """What the model says without its trained adapter; arguments as of a call.  Keeps nothing for a backward pass and
        leaves the mode alone."""
        assert isinstance(self.model, PeftModel), "only an adapter can be switched off"
        was_training = self.model.training
        self.model.eval()
        try:
            with self.model.disable_adapter():
                said = self.told(*args, **kwargs)
        finally:
            self.model.train(was_training)
        if said.head is not None:
            said.head = replace(said.head, linear=_untuned_output(_causal(self.model)))
        return said

    @property
    def head(self) -> Head | None:
        """What makes logits of hidden states; None where the model is asked for logits."""
        return self._asked[1]

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None,
        places: Tensor,
        bounds: Tensor | None = None,
        longest: int | None = None,
        shared: ragged.Shared | None = None,
    ) -> Predictions:
        """What the model says at `places`, int64 [places], counted over all tokens of `input_ids` [rows, tokens].

        `bounds` int32 [rows + 1]: where the rows begin that lie behind one another in one, and the end; `longest`: tokens
        of the longest of them; `shared`: which of them begin with another's tokens.
        """
        asked, head = self._asked
        if self._noise is not None:
            self._noise.position_ids = position_ids
        told: dict[str, Any] = {} if bounds is None else _rows(bounds, longest, shared, self.multiple_of)
        said = _said(asked, input_ids, attention_mask, position_ids, **told)
        return Predictions(said.reshape(-1, said.shape[-1])[places], head, self.loss, self.multiple_of)


def predictor(
    model: PreTrainedModel | PeftModel,
    *,
    no_padding: bool = True,
    share: bool = True,
    fused_loss: bool = True,
    within: str = ragged.NAME,
    multiple_of: int = 1,
    loss: Callable[..., Tensor] = linear_cross_entropy,
) -> Predictor:
    """A model asked in the fastest of the ways that it passes a trial of: rows without padding, starts that they `share`
    computed once, hidden states instead of logits.  Runs the model on a dozen tokens; leaves its mode and random states
    alone, and its attention set to what the way needs: one that knows bounds of rows already, else `within`, one of
    WITHIN.  `multiple_of`, where there is no padding, and `loss`, where there are hidden states: as in Predictor."""
    causal, was_training = _causal(model), model.training
    model.eval()
    with torch.no_grad():
        rows = [torch.arange(2, 2 + tokens, device=causal.device)[None] for tokens in TRIED]
        truth = torch.cat([causal(input_ids=row, use_cache=False).logits[0] for row in rows]).float()
        head = next((head for head in heads(causal) if _agrees(causal, head, rows, truth)), None)
        fits = no_padding and _passes_without_padding(causal, rows, truth, within)
        shares = share and fits and _passes_sharing(causal, rows, truth)
    model.train(was_training)
    even = multiple_of if fits else 1
    return Predictor(model, head if fused_loss else None, ragged=fits, shares=shares, multiple_of=even, loss=loss)


def heads(causal: PreTrainedModel) -> Iterator[Head]:
    """What the model's way from hidden states to logits may be, by its own module and the names in its config."""
    linear = causal.get_output_embeddings()
    if isinstance(linear, ModulesToSaveWrapper):
        linear = linear.modules_to_save[linear.active_adapters[0]]
    if type(linear) is not nn.Linear or causal.get_decoder() is causal:  # some give themselves for want of a decoder
        return
    said = causal.config.get_text_config().to_dict()
    divided, factor = said.get("logits_scaling"), said.get("logit_scale")
    for scale in (*([1 / divided] if divided else []), *([factor] if factor else []), 1.0):
        yield Head(linear, scale, said.get("final_logit_softcapping"))


def _untuned_output(causal: PreTrainedModel) -> nn.Linear:
    """The output head as it was before tuning."""
    linear = causal.get_output_embeddings()
    return linear.original_module if isinstance(linear, ModulesToSaveWrapper) else linear


def _agrees(causal: PreTrainedModel, head: Head, rows: list[Tensor], truth: Tensor) -> bool:
    """Whether the head makes the model's logits out of its decoder's hidden states."""
    decoder = causal.get_decoder()
    found = torch.cat([head.logits(_said(decoder, row, None, None))[0] for row in rows])
    return _close(found, truth)


def _passes_without_padding(causal: PreTrainedModel, rows: list[Tensor], truth: Tensor, within: str) -> bool:
    """Whether two rows behind one another give the logits that each gives alone.  Leaves the model's attention as it was
    if not.

    There are no masks then, so a model must tell its attention of windows itself, as it does where FlashAttention may be
    used; chunks, which only masks tell of, are longer than what is tried here."""
    if not causal._supports_flash_attn or causal.config.get_text_config().to_dict().get("attention_chunk_size"):
        return False
    plain = causal.config._attn_implementation
    tokens = torch.tensor([0, *(row.shape[1] for row in rows)], dtype=torch.int32, device=causal.device)
    positions = torch.cat([torch.arange(row.shape[1], device=causal.device) for row in rows])[None]
    try:
        if not plain.startswith("flash_attention"):
            WITHIN[within]()
            causal.set_attn_implementation(within)
            if causal.config._attn_implementation != within:
                return False
        told = _rows(tokens.cumsum(0, dtype=torch.int32), max(TRIED))
        found = _said(causal, torch.cat(rows, dim=1), None, positions, **told)
        if _close(found[0], truth):
            return True
    except (ragged.Unfit, ValueError, TypeError, AssertionError):  # what models raise that do not know these arguments
        pass
    causal.set_attn_implementation(plain)
    return False


def _passes_sharing(causal: PreTrainedModel, rows: list[Tensor], truth: Tensor) -> bool:
    """Whether two rows that begin alike give the logits that each gives alone, where that start comes once.

    Not where angles of positions depend on the longest row, which may then be a few tokens shorter than it is."""
    if causal.config._attn_implementation != ragged.NAME or _turns_by_length(causal.config.get_text_config().to_dict()):
        return False
    sizes = [ALIKE, *(row.shape[1] - ALIKE for row in rows)]
    places = torch.arange(sum(sizes), device=causal.device)
    own = places.split(sizes)
    shared = _Shared(
        before=(-1, 0, 0),
        keys=torch.cat([own[0], own[0], own[1], own[0], own[2]]),
        bounds=F.pad(places.new_tensor([ALIKE, *map(len, (row[0] for row in rows))]).cumsum(0), (1, 0)).int(),
        longest=max(TRIED),
    )
    ids = torch.cat([rows[0][:, :ALIKE], *(row[:, ALIKE:] for row in rows)], dim=1)
    positions = torch.cat([torch.arange(ALIKE), *(torch.arange(ALIKE, row.shape[1]) for row in rows)])
    bounds = F.pad(places.new_tensor(sizes).cumsum(0), (1, 0)).int()
    found = _said(causal, ids, None, positions[None].to(ids.device), **_rows(bounds, max(sizes), shared))[0]
    return _close(found[torch.cat([own[0], own[1], own[0], own[2]])], truth)


def _turns_by_length(said: Any) -> bool:
    """Whether a config, or a part of one, has rotary positions whose angles depend on the length of a row."""
    if not isinstance(said, dict):
        return False
    return said.get("rope_type") in ("dynamic", "longrope") or any(map(_turns_by_length, said.values()))


def _close(found: Tensor, truth: Tensor) -> bool:
    apart = (found.float() - truth).square().mean(-1).sqrt()
    return bool((apart <= ROUNDING[found.dtype] * truth.std()).all())


def _said(
    asked: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    **told: Any,
) -> Tensor:
    """Hidden states of a decoder, logits of a model with a head; [rows, tokens, ...].  `told`: what its attention is told
    of rows behind one another."""
    output = asked(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False, **told
    )
    said: Tensor = output[0]
    return said


def _rows(
    bounds: Tensor, longest: int | None, shared: ragged.Shared | None = None, multiple_of: int = 1
) -> dict[str, Any]:
    """What attention is told of rows behind one another, by the names that Transformers passes on; of what is not plain,
    only where it is there, since other attention does not know it."""
    told: dict[str, Any] = {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    if shared is not None:
        told["shared"] = shared
    if multiple_of > 1:
        told["multiple_of"] = multiple_of
    return told


def _causal(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model under its adapters, whose layers stand in its place."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
