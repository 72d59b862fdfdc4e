"""NEFTune: how far noise reaches, for whom, when, and that layouts agree."""

import pytest
import torch
from torch import nn

from tunesmith.models.neftune import Noise, tokens_of_samples


def noise(positions: list[list[int]], width: int = 4, alpha: float = 5.0, training: bool = True) -> torch.Tensor:
    embeddings = nn.Embedding(3, width).train(training)
    noisy = Noise(alpha, embeddings)
    noisy.position_ids = torch.tensor(positions)
    ids = torch.zeros_like(noisy.position_ids)
    return (embeddings(ids) - embeddings.weight[0]).detach()


def test_each_token_counts_its_own_samples_tokens() -> None:
    # Padded rows of 3 and 2 tokens; one row with the same samples behind one another.
    assert tokens_of_samples(torch.tensor([[0, 1, 2], [0, 1, 0]])).tolist() == [[3, 3, 3], [2, 2, 1]]
    assert tokens_of_samples(torch.tensor([[0, 1, 2, 0, 1]])).tolist() == [[3, 3, 3, 2, 2]]


@pytest.mark.parametrize("layout", ["padded", "joined"])
def test_noise_is_even_and_reaches_as_far_as_the_paper_says(layout: str) -> None:
    """A sample of 9 tokens beside one of 1: alpha / sqrt(9 x 4) is 5/6, alpha / sqrt(1 x 4) is 5/2."""
    torch.manual_seed(0)
    long, short = [], []
    for _ in range(300):
        made = noise([[*range(9)], [0] * 9]) if layout == "padded" else noise([[*range(9), 0]])
        flat = made.reshape(-1, 4)
        long.append(flat[:9])
        short.append(flat[9])
    for drawn, reach in ((torch.stack(long), 5 / 6), (torch.stack(short), 5 / 2)):
        assert 0.99 * reach < drawn.abs().max() <= reach
        assert drawn.mean().abs() < 0.1 * reach
        assert float(drawn.var()) == pytest.approx(reach**2 / 3, rel=0.1)


def test_only_training_is_noisy_and_a_seed_tells_the_noise() -> None:
    assert not noise([[0, 1]], training=False).any()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(noise([[0, 1]]))
    # The embeddings are drawn from the same generator before, so the noise is the same up to a subtraction.
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
    assert not torch.allclose(drawn[0], drawn[2])
