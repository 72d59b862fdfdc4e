"""The loss of next-token training, against numbers worked out by hand."""

import math

import torch

from tunesmith.losses import lm


def test_cross_entropy_of_two_tokens_by_hand() -> None:
    # Two positions predict: the first gives its label 3/4, the second is not trained, the third gives 1/2.
    logits = torch.log(torch.tensor([[[0.25, 0.75], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]]))
    labels = torch.tensor([[0, 1, lm.IGNORED, 0]])
    expected = -math.log(0.75) - math.log(0.5)
    assert lm.cross_entropy(logits, labels).item() == torch.tensor(expected).float().item()


def test_a_rows_first_token_is_never_trained() -> None:
    assert lm.trained_tokens(torch.tensor([[5, 5, lm.IGNORED, 5], [5, lm.IGNORED, lm.IGNORED, lm.IGNORED]])) == 2


def test_it_is_a_sum_so_batches_add_up() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 7, 11), torch.randint(0, 11, (4, 7))
    labels[1, 3:] = lm.IGNORED
    whole = lm.cross_entropy(logits, labels)
    parts = sum(lm.cross_entropy(logits[i : i + 1], labels[i : i + 1]) for i in range(4))
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=0)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 50, 30).bfloat16(), torch.randint(0, 30, (1, 50))
    assert lm.cross_entropy(logits, labels).dtype == torch.float32
    torch.testing.assert_close(lm.cross_entropy(logits, labels), lm.cross_entropy(logits.float(), labels))


def test_nothing_trained_costs_nothing() -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)
    cost = lm.cross_entropy(logits, torch.full((1, 3), lm.IGNORED))
    cost.backward()
    assert cost.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()
