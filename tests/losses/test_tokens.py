"""Losses of single tokens: values worked out by hand, gradients those of the plain formula, from hidden states in chunks."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.trainer_pt_utils import LabelSmoother

from tunesmith.losses import pieces
from tunesmith.losses.linear import linear_loss, loss_of_logits
from tunesmith.losses.tokens import TokenLoss, asft, dft, eaft, smoothed

WIDTH, VOCABULARY, TOKENS = 16, 53, 41

Plain = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain_dft(logits: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses * torch.exp(-losses).detach()


def plain_eaft(logits: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    top = torch.distributions.Categorical(logits=logits.detach().topk(20, dim=1).values)
    return F.cross_entropy(logits, targets, reduction="none") * (top.entropy() / 3.0) ** 0.7


def plain_asft(logits: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    away = F.kl_div(logits.log_softmax(1), before.softmax(1), reduction="none").sum(1)
    return plain_dft(logits, targets, before) + 0.3 * away


def plain_smoothed(logits: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.2)


LOSSES: dict[str, tuple[TokenLoss, Plain]] = {
    "dft": (dft, plain_dft),
    "eaft": (eaft(0.7), plain_eaft),
    "asft": (asft(0.3), plain_asft),
    "smoothed": (smoothed(0.2), plain_smoothed),
}


def made() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        "hidden": torch.randn(TOKENS, WIDTH, generator=random),
        "weight": torch.randn(VOCABULARY, WIDTH, generator=random) / 2,
        "bias": torch.randn(VOCABULARY, generator=random),
        "before": torch.randn(TOKENS, VOCABULARY, generator=random),
        "targets": torch.randint(VOCABULARY, (TOKENS,), generator=random),
        "weights": torch.rand(TOKENS, generator=random),
    }


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("chunk", [5 * VOCABULARY, 1 << 20])
@pytest.mark.parametrize(("scale", "cap", "weighted"), [(1.0, None, False), (0.5, None, True), (2.0, 5.0, True)])
def test_values_and_gradients_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, name: str, chunk: int, scale: float, cap: float | None, weighted: bool
) -> None:
    monkeypatch.setitem(pieces.CHUNK, "cpu", chunk)
    monkeypatch.setitem(pieces.BLOCK, "cpu", 3 * VOCABULARY)
    each, formula = LOSSES[name]
    found = []
    for function in ("chunks", "formula"):
        given = made()
        inputs = [given[one].requires_grad_() for one in ("hidden", "weight", "bias")]
        hidden, weight, bias = inputs
        counts = given["weights"] if weighted else torch.ones(TOKENS)
        if function == "chunks":
            loss = linear_loss(
                each, hidden, weight, given["targets"], bias=bias, weights=counts if weighted else None,
                scale=scale, softcap=cap, before=given["before"].__getitem__,
            )  # fmt: skip
        else:
            logits = F.linear(hidden, weight, bias) * scale
            logits = logits if cap is None else cap * torch.tanh(logits / cap)
            loss = (formula(logits, given["targets"], given["before"]) * counts).sum()
        (loss * 0.7).backward()
        found.append([loss.detach(), *(one.grad for one in inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_logits_that_are_there_cost_the_same(name: str) -> None:
    each, formula = LOSSES[name]
    given = made()
    found = []
    for function in ("ours", "formula"):
        logits = given["before"].flip(0).clone().requires_grad_()
        if function == "ours":
            before = given["before"].__getitem__
            loss = loss_of_logits(each, logits, given["targets"], weights=given["weights"], before=before)
        else:
            loss = (formula(logits, given["targets"], given["before"]) * given["weights"]).sum()
        (loss * 0.7).backward()
        found.append((loss.detach(), logits.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


# Two tokens to choose from, with logits ln 3 and 0: p = 3/4 and 1/4.
LOGITS = [[math.log(3.0), 0.0]]
ENTROPY = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))

BY_HAND = [
    (dft, 0, 0.75 * math.log(4 / 3), [0.75 * (0.75 - 1), 0.75 * 0.25]),
    (dft, 1, 0.25 * math.log(4), [0.25 * 0.75, 0.25 * (0.25 - 1)]),
    (eaft(1.0), 0, ENTROPY / 3 * math.log(4 / 3), [ENTROPY / 3 * -0.25, ENTROPY / 3 * 0.25]),
    (eaft(0.0), 1, math.log(4), [0.75, -0.75]),
    # Before: 1/2 and 1/2, so KL = 1/2 ln(2/3) + 1/2 ln 2 = 1/2 ln(4/3).
    (asft(2.0), 0, 0.75 * math.log(4 / 3) + math.log(4 / 3), [0.75 * -0.25 + 2 * 0.25, 0.75 * 0.25 - 2 * 0.25]),
    (smoothed(0.5), 0, 0.5 * math.log(4 / 3) + 0.25 * (math.log(4 / 3) + math.log(4)), [0.75 - 0.5 - 0.25, 0.0]),
]


@pytest.mark.parametrize(("each", "target", "loss", "gradient"), BY_HAND)
def test_by_hand(each: TokenLoss, target: int, loss: float, gradient: list[float]) -> None:
    found, by_logits = each(torch.tensor(LOGITS), torch.tensor([[target]]), torch.zeros(1, 2))
    assert found.tolist() == pytest.approx([loss], rel=1e-6)
    assert by_logits.tolist() == [pytest.approx(gradient, abs=1e-6)]


def test_smoothing_is_transformers() -> None:
    given = made()
    labels = given["targets"].clone()
    labels[::3] = -100
    theirs = LabelSmoother(epsilon=0.1)({"logits": given["before"]}, labels)
    trained = labels >= 0
    ours, _ = smoothed(0.1)(given["before"][trained], labels[trained, None], None)
    assert float(ours.mean()) == pytest.approx(float(theirs), rel=1e-6)


def test_nothing_to_predict_costs_nothing() -> None:
    given = made()
    x = given["hidden"][:0].clone().requires_grad_()
    loss = linear_loss(dft, x, given["weight"], given["targets"][:0])
    loss.backward()
    assert float(loss.detach()) == 0.0
    logits = given["before"][:0].clone().requires_grad_()
    loss_of_logits(dft, logits, given["targets"][:0]).backward()
    assert logits.grad is not None and logits.grad.shape == (0, VOCABULARY)


def test_a_sure_model_has_no_entropy_and_no_gradient_that_is_none() -> None:
    logits = torch.tensor([[400.0, 0.0, -400.0]])
    for each in (eaft(0.5), dft, asft(0.1)):
        loss, gradient = each(logits.clone(), torch.tensor([[2]]), torch.tensor([[0.0, 400.0, 0.0]]))
        assert loss.isfinite().all() and gradient.isfinite().all()
