"""Tokens are drawn from the distribution that transformers' own warpers leave, each by its row's own number."""

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tunesmith.generate.draw import LIKELIEST, chances, next_tokens
from tunesmith.generate.sampling import Sampling

SIZE = 2 * LIKELIEST


def logits(rows: int, spread: float = 2.0) -> torch.Tensor:
    return spread * torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("top_k", "top_p", "spread"),
    [(50, 0.7, 2.0), (0, 0.7, 2.0), (0, 0.9, 0.1), (3, 1.0, 2.0), (0, 1.0, 1.0), (50, 1e-9, 2.0)],
)
def test_shares_are_those_of_transformers(top_k: int, top_p: float, spread: float) -> None:
    sampling = Sampling(do_sample=True, temperature=0.8, top_p=top_p, top_k=top_k)
    one = logits(1, spread)
    left = TemperatureLogitsWarper(0.8)(None, one)
    left = TopKLogitsWarper(top_k)(None, left) if top_k else left
    left = TopPLogitsWarper(top_p)(None, left) if top_p < 1 else left
    expected = left.softmax(-1)[0]
    count = 100_000
    evenly = (torch.arange(count) + 0.5) / count
    drawn = torch.cat([next_tokens(one.expand(1000, -1), sampling, part, None) for part in evenly.split(1000)])
    found = torch.bincount(drawn, minlength=SIZE) / count
    assert (found - expected).abs().max() < 3e-5
    assert bool((expected[drawn] > 0).all())


def test_the_ends_of_the_chance_are_tokens_too() -> None:
    sampling = Sampling(do_sample=True, top_p=0.5)
    ends = torch.tensor([0.0, 1.0 - 2**-24])
    drawn = next_tokens(logits(1).expand(2, -1), sampling, ends, None)
    assert drawn[0] == logits(1).argmax() and 0 <= drawn[1] < SIZE


@pytest.mark.parametrize("penalty", [0.5, 1.5])
def test_what_was_seen_is_punished(penalty: float) -> None:
    ids = torch.tensor([[3, 8, 8], [1, 2, 9]])
    seen = torch.zeros(2, SIZE, dtype=torch.bool).scatter_(1, ids, True)
    both = logits(2)
    both[0, 8], both[1, 9] = both[0].max() + 0.1, both[1].max() + 0.1
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, both).argmax(-1)
    chosen = next_tokens(both, Sampling(repetition_penalty=penalty), torch.zeros(2), seen)
    assert torch.equal(chosen, expected)


def test_chances_are_a_rows_own() -> None:
    sampling = Sampling(seed=5)
    assert (chances(sampling, 3, 10) == chances(sampling, 3, 20)[:10]).all()
    assert (chances(sampling, 3, 10) != chances(sampling, 4, 10)).all()
    assert (chances(sampling, 3, 10) != chances(Sampling(seed=6), 3, 10)).all()
