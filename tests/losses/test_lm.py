"""The loss of next-token training, against numbers worked out by hand."""

import math

import pytest
import torch

from tunesmith.losses.lm import cross_entropy

LOGITS = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
TARGETS = torch.tensor([1, 0])


def test_two_tokens_by_hand() -> None:
    expected = -math.log(0.75) - math.log(0.5)
    assert cross_entropy(LOGITS, TARGETS).item() == torch.tensor(expected).float().item()


def test_a_weighted_sum_by_hand() -> None:
    expected = -0.5 * math.log(0.75) - 2 * math.log(0.5)
    assert cross_entropy(LOGITS, TARGETS, torch.tensor([0.5, 2.0])).item() == pytest.approx(expected, rel=1e-6)


def test_weights_of_one_change_no_gradient() -> None:
    torch.manual_seed(0)
    targets, found = torch.randint(0, 11, (24,)), []
    for weights in (None, torch.ones(24)):
        logits = torch.ones(24, 11).cumsum(1).sin().requires_grad_()
        cost = cross_entropy(logits, targets, weights)
        cost.backward()
        found.append((cost, logits.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_it_is_a_sum_so_batches_add_up() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(28, 11), torch.randint(0, 11, (28,))
    parts = [cross_entropy(*part) for part in zip(logits.split(7), targets.split(7), strict=True)]
    torch.testing.assert_close(cross_entropy(logits, targets), torch.stack(parts).sum(), rtol=1e-6, atol=0)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 30).bfloat16(), torch.randint(0, 30, (50,))
    assert cross_entropy(logits, targets).dtype == torch.float32
    torch.testing.assert_close(cross_entropy(logits, targets), cross_entropy(logits.float(), targets))


def test_nothing_trained_costs_nothing() -> None:
    logits = torch.randn(0, 5, requires_grad=True)
    cost = cross_entropy(logits, TARGETS[:0])
    cost.backward()
    assert cost.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()
