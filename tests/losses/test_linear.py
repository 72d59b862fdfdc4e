"""The loss from hidden states is the plain loss: value and every gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tunesmith.losses import linear, pieces
from tunesmith.losses.linear import linear_cross_entropy

WIDTH, VOCABULARY, TOKENS = 16, 53, 41


def made(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    hidden = torch.randn(TOKENS, WIDTH, generator=random).to(dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=random).to(dtype)
    bias = torch.randn(VOCABULARY, generator=random).to(dtype)
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=random)
    return hidden, weight, bias, targets, torch.rand(TOKENS, generator=random)


def plain(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor | None,
    scale: float,
    cap: float | None,
) -> Tensor:
    logits = F.linear(hidden, weight, bias).float() * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses.sum() if weights is None else (losses * weights).sum()


@pytest.mark.parametrize("chunk", [1, 5 * VOCABULARY, 1 << 20])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, None), (1.0, 3.0), (2.0, 5.0)])
def test_value_and_gradients_are_those_of_the_plain_loss(
    monkeypatch: pytest.MonkeyPatch, chunk: int, with_bias: bool, weighted: bool, scale: float, cap: float | None
) -> None:
    monkeypatch.setitem(pieces.CHUNK, "cpu", chunk)
    monkeypatch.setitem(pieces.BLOCK, "cpu", 3 * VOCABULARY)
    hidden, weight, bias, targets, weights = made()
    counts = weights if weighted else None
    found = []
    for function in ("fused", "plain"):
        inputs = [each.clone().requires_grad_() for each in (hidden, weight, bias)]
        b = inputs[2] if with_bias else None
        loss = (
            linear_cross_entropy(inputs[0], inputs[1], targets, bias=b, weights=counts, scale=scale, softcap=cap)
            if function == "fused"
            else plain(inputs[0], inputs[1], b, targets, counts, scale, cap)
        )
        (loss * 0.7).backward()
        found.append([loss.detach(), *(each.grad for each in inputs[: 3 if with_bias else 2])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_bf16_is_as_near_the_truth_as_the_plain_way() -> None:
    hidden, weight, _, targets, _ = made()
    truth = hidden.clone().requires_grad_()
    plain(truth, weight, None, targets, None, 1.0, None).backward()
    found = []
    for fused in (True, False):
        x, w = hidden.bfloat16().requires_grad_(), weight.bfloat16()
        (linear_cross_entropy(x, w, targets) if fused else plain(x, w, None, targets, None, 1.0, None)).backward()
        found.append(float((x.grad.float() - truth.grad).norm()))
    assert found[0] <= 1.05 * found[1]


def test_an_unlikely_target_costs_much_and_not_infinity() -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[300.0], [-300.0]])
    assert float(linear_cross_entropy(hidden, weight, torch.tensor([1]))) == pytest.approx(600.0)


def test_nothing_to_predict_costs_nothing() -> None:
    hidden, weight, _, targets, _ = made()
    x = hidden[:0].clone().requires_grad_()
    loss = linear_cross_entropy(x, weight, targets[:0])
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert x.grad is not None and x.grad.shape == (0, WIDTH)


def test_frozen_heads_get_no_gradient_and_evaluation_needs_none() -> None:
    hidden, weight, _, targets, _ = made()
    x = hidden.clone().requires_grad_()
    linear_cross_entropy(x, weight, targets).backward()
    with torch.no_grad():
        again = linear_cross_entropy(hidden, weight, targets)
    assert weight.grad is None
    torch.testing.assert_close(again, plain(hidden, weight, None, targets, None, 1.0, None))


def test_a_head_in_fp32_gets_its_gradient_part_by_part_from_products_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, _, targets, _ = made()
    found = []
    for rows in (7, VOCABULARY):
        monkeypatch.setattr(linear, "PART", rows)
        head = weight.clone().requires_grad_()
        linear_cross_entropy(hidden.bfloat16(), head, targets).backward()
        found.append(head.grad)
    assert found[0].dtype == torch.float32
    assert torch.equal(*found)
    exact = weight.clone().requires_grad_()
    plain(hidden, exact, None, targets, None, 1.0, None).backward()
    torch.testing.assert_close(found[0], exact.grad, rtol=5e-2, atol=5e-2)


def test_room_that_is_kept_serves_one_loss_after_another() -> None:
    hidden, weight, _, targets, _ = made()
    truth = weight.clone().requires_grad_()
    for part in (slice(0, 30), slice(30, 41), slice(5, 9)):
        linear_cross_entropy(hidden[part], truth, targets[part]).backward()
    linear.keep_room(True)
    try:
        head = weight.clone().requires_grad_()
        for part in (slice(0, 30), slice(30, 41), slice(5, 9)):
            linear_cross_entropy(hidden[part], head, targets[part]).backward()
        two = weight.clone().requires_grad_()
        both = [linear_cross_entropy(hidden[part], two, targets[part]) for part in (slice(0, 30), slice(30, 41))]
        (both[0] + both[1] + linear_cross_entropy(hidden[5:9], two, targets[5:9])).backward()
        nothing = weight.clone().requires_grad_()
        linear_cross_entropy(hidden[:0], nothing, targets[:0]).backward()
    finally:
        linear.keep_room(False)
    assert torch.equal(head.grad, truth.grad)  # type: ignore[arg-type]
    torch.testing.assert_close(two.grad, truth.grad)
    assert not nothing.grad.any()  # type: ignore[union-attr]


def test_pieces_of_an_even_number_of_tokens_are_even() -> None:
    for tokens in range(1, 900):
        size = pieces.at_once(tokens, 151_936, "cpu", 2)
        assert size <= tokens + pieces.EVEN and size * 151_936 * 2 <= pieces.CHUNK["cpu"] + pieces.EVEN * 151_936 * 2
        assert tokens % pieces.EVEN or size % pieces.EVEN == 0


def test_room_that_is_kept_is_memory() -> None:
    """A step that is traced in between neither takes it nor leaves what only stands for memory."""
    hidden, weight, _, targets, _ = made()
    linear.keep_room(True)
    try:
        head = weight.clone().requires_grad_()
        linear_cross_entropy(hidden, head, targets).backward()
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(each) for each in (hidden, weight, targets)]
            linear_cross_entropy(fake[0], fake[1].requires_grad_(), fake[2]).backward()
        linear_cross_entropy(hidden, head, targets).backward()
    finally:
        linear.keep_room(False)
    truth = weight.clone().requires_grad_()
    linear_cross_entropy(hidden, truth, targets).backward()
    torch.testing.assert_close(head.grad, 2 * truth.grad)  # type: ignore[operator]
