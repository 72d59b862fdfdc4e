"""Losses straight from hidden states, without ever holding the logits of all tokens.  Knows tensors; knows no model.

The logits of some tokens at a time are made, turned into their gradient in place, and multiplied back; so the gradient is
ready when the loss is, and the backward pass only scales it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.compiled import compilable
from tunesmith.losses import pieces
from tunesmith.losses.pieces import BLOCK, PART
from tunesmith.losses.tokens import TokenLoss


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    weights: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Sum over tokens of -log p(target), shape [], in float32.

    `hidden` [tokens, width]; `weight` [vocabulary, width] and `bias` [vocabulary]: the output head; `targets` int64
    [tokens]; `weights` float32 [tokens]: what each token counts, 1 by default.  Logits are `scale` times the head's
    output, then, where `softcap` is given, softcap * tanh(logits / softcap).  Computed in the format of `hidden`, or
    autocast's; the probabilities in float32.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    return _LinearLoss.apply(hidden.to(dtype), weight, bias, targets, weights, scale, softcap, None, None)


Before = Callable[[slice], Tensor]
"""Tokens from where to where -> the logits [tokens, vocabulary] that the model had there before it was tuned."""


def linear_loss(
    each: TokenLoss,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    weights: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    before: Before | None = None,
) -> Tensor:
    """Sum over tokens of the loss `each`; everything else as in `linear_cross_entropy`."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    return _LinearLoss.apply(hidden.to(dtype), weight, bias, targets, weights, scale, softcap, each, before)


def loss_of_logits(
    each: TokenLoss, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, before: Before | None = None
) -> Tensor:
    """The same of `logits` [tokens, vocabulary] that are there already."""
    return _LossOfLogits.apply(logits, targets, weights, each, before)


def most_bytes(
    tokens: int,
    weight: Tensor,
    dtype: torch.dtype,
    *,
    softcap: bool = False,
    anchored: bool = False,
) -> int:
    """Bytes that the loss of so many tokens takes at the most, computed in `dtype`, its gradients included.  `anchored`: it
    is a TokenLoss that compares with logits from before."""
    return pieces.most_bytes(
        tokens,
        *weight.shape,
        kind=weight.device.type,
        itemsize=dtype.itemsize,
        held=weight.itemsize,
        trained=weight.requires_grad,
        softcap=softcap,
        anchored=anchored,
    )


class _Room:
    """Memory for the gradient of a head, which serves one loss after another where it is `kept`: pages that are new to a
    process take longer than what is written there."""

    def __init__(self) -> None:
        self.kept = False
        self._free: Tensor | None = None

    def take(self, weight: Tensor) -> Tensor:
        """Room like `weight`, with anything in it, which nobody else has."""
        free = self._free
        if free is None or not _is_plain(weight):
            return torch.empty_like(weight)
        self._free = None
        alike = (free.shape, free.dtype, free.device) == (weight.shape, weight.dtype, weight.device)
        return free if alike else torch.empty_like(weight)

    def give(self, taken: Tensor) -> None:
        """Let the next one have it."""
        if self.kept and _is_plain(taken):
            self._free = taken

    def keep(self, wanted: bool) -> None:
        self.kept, self._free = wanted, None


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is memory, not what only stands for it while a step is traced."""
    return type(tensor) in (Tensor, torch.nn.Parameter)


_room = _Room()


def keep_room(wanted: bool) -> None:
    """Whether the gradient of a head lies where that of the last loss lay: for who calls `backward` and reads what it has
    summed up in `grad`, not for `torch.autograd.grad`, whose result would be overwritten."""
    _room.keep(wanted)


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor | None,
        scale: float,
        softcap: float | None,
        each: TokenLoss | None,
        before: Before | None,
    ) -> Tensor:
        wanted = ctx.needs_input_grad
        head, kind = weight.to(hidden.dtype), hidden.device.type
        chunk = pieces.at_once(len(hidden), len(weight), kind, hidden.itemsize)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        by_hidden = torch.empty_like(hidden) if wanted[0] else None
        by_weight = _room.take(weight) if wanted[1] else None
        if by_weight is not None and not len(hidden):
            by_weight.zero_()
        by_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(hidden), max(1, chunk)):
                part = slice(start, start + chunk)
                counts = None if weights is None else weights[part, None]
                logits = hidden[part] @ head.t()
                if bias is not None:
                    logits += bias
                said = None if before is None else before(part)
                step = partial(_of_one, each, scale, softcap, any(wanted[:3]))
                losses[part] = _to_gradients(step, logits, targets[part, None], counts, said)
                if by_hidden is not None:
                    by_hidden[part] = logits @ head
                if by_weight is not None:
                    _add_product(by_weight, logits.t(), hidden[part], anew=start == 0)
                if by_bias is not None:
                    by_bias += logits.sum(0)
                del logits  # before the next ones are made, which then lie in the same place
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        return losses.sum() if weights is None else (losses * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # In place: the gradient of a large head should not be there twice.
        scaled = [None if each is None else each.mul_(grad.to(each.dtype)) for each in ctx.saved_tensors]
        if scaled[1] is not None:  # torch adds it to `grad` before anything asks for the room again
            _room.give(scaled[1])
        return (*scaled, None, None, None, None, None, None)


class _LossOfLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        each: TokenLoss,
        before: Before | None,
    ) -> Tensor:
        gradient = logits.detach().clone()
        said = None if before is None else before(slice(0, len(logits)))
        step = partial(_of_one, each, 1.0, None, True)
        losses = _to_gradients(step, gradient, targets[:, None], None if weights is None else weights[:, None], said)
        ctx.save_for_backward(gradient)
        return losses.sum() if weights is None else (losses * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(grad.to(gradient.dtype)), None, None, None, None


def _add_product(total: Tensor, one: Tensor, other: Tensor, *, anew: bool) -> None:
    """total += one @ other, or `anew` total = one @ other, which never lies beside it as a whole; [rows, inner] and
    [inner, columns]."""
    if total.dtype == one.dtype:
        total.addmm_(one, other, beta=0 if anew else 1)
        return
    for rows, part in zip(total.split(PART), one.split(PART), strict=True):
        rows.copy_(part @ other) if anew else rows.add_(part @ other)


def _to_gradients(
    step: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor | None]],
    logits: Tensor,
    targets: Tensor,
    counts: Tensor | None,
    before: Tensor | None,
) -> Tensor:
    """The loss of each token, [tokens]; `logits` [tokens, vocabulary] become the gradient of the sum by the head's
    output, where `step` gives one.  A step is given some tokens' logits, targets, counts, and logits from before."""
    losses = []
    block = max(1, BLOCK[logits.device.type] // logits.shape[1])
    for start in range(0, len(logits), block):
        part = slice(start, start + block)
        rows, count = logits[part], None if counts is None else counts[part]
        loss, gradient = step(rows, targets[part], count, None if before is None else before[part])
        if gradient is not None:
            rows.copy_(gradient)
        losses.append(loss)
    return torch.cat(losses) if losses else logits.new_zeros(0, dtype=torch.float32)


def _of_one(
    each: TokenLoss | None,
    scale: float,
    softcap: float | None,
    wanted: bool,
    rows: Tensor,
    target: Tensor,
    count: Tensor | None,
    before: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The loss of each of some tokens, and the gradient of their sum by the head's output, if `wanted`: cross-entropy, or
    `each`."""
    if each is None:
        if not wanted:
            return _loss(rows, target, scale, softcap), None
        return _loss_and_gradient(rows, target, count, scale, softcap)
    exact = _shaped(rows, scale, softcap)
    slope = None if softcap is None else scale * (1 - (exact / softcap).square())
    loss, gradient = each(exact, target, before)
    if slope is not None or scale != 1.0:
        gradient = gradient.mul_(scale if slope is None else slope)
    return loss, gradient if count is None else gradient.mul_(count)


@compilable
def _loss(rows: Tensor, target: Tensor, scale: float, softcap: float | None) -> Tensor:
    """-log p(target) of some tokens' logits [tokens, vocabulary]; [tokens], float32."""
    exact = _shaped(rows, scale, softcap)
    highest, said = exact.amax(1, keepdim=True), exact.gather(1, target)
    return (exact.sub_(highest).exp_().sum(1, keepdim=True).log() + highest - said).squeeze(1)


@compilable
def _loss_and_gradient(
    rows: Tensor, target: Tensor, count: Tensor | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """The same, and the gradient of the sum over tokens, each counting `count` [tokens, 1], by `rows`."""
    exact = _shaped(rows, scale, softcap)
    highest, said = exact.amax(1, keepdim=True), exact.gather(1, target)
    shares = torch.softmax(exact, 1)
    # The largest share is one part of the sum of all exp(logit - highest), whose logarithm the loss has.
    loss = (highest - shares.amax(1, keepdim=True).log() - said).squeeze(1)
    at_target = shares.gather(1, target) - 1
    slope = None if softcap is None else scale * (1 - (exact / softcap).square())
    del exact
    if count is not None:
        shares, at_target = shares.mul_(count), at_target * count
    if slope is not None:
        shares, at_target = shares.mul_(slope), at_target * slope.gather(1, target)
    elif scale != 1.0:
        shares, at_target = shares.mul_(scale), at_target * scale
    return loss, shares.to(rows.dtype).scatter_(1, target, at_target.to(rows.dtype))


def _shaped(rows: Tensor, scale: float, softcap: float | None) -> Tensor:
    """A copy of the logits as float32, scaled and capped."""
    exact = rows.to(torch.float32, copy=True) if scale == 1.0 else rows.float() * scale
    return exact if softcap is None else exact.div_(softcap).tanh_().mul_(softcap)
