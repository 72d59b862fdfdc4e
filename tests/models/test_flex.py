"""FlexAttention over rows behind one another is attention within each row.  Forward only: its way back needs a GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tunesmith.models import flex, ragged
from tunesmith.models.predict import predictor

LENGTHS = (3, 150, 1, 47)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("window", [None, 4, 130])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("heads", [(4, 2), (7, 1), (4, 4)])
def test_each_row_sees_itself_alone(window: int | None, softcap: float | None, heads: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(1, h, sum(LENGTHS), 16, generator=random).to(DEVICE) for h in (*heads, heads[1]))
    bounds = F.pad(torch.tensor(LENGTHS), (1, 0)).cumsum(0).int().to(DEVICE)
    with torch.no_grad():
        found, expected = (
            attend(
                nn.Module(), query, key, value, None, scaling=0.3, sliding_window=window, softcap=softcap,
                cu_seq_lens_q=bounds, max_length_q=max(LENGTHS),
            )[0]
            for attend in (flex.attend, ragged.attend)
        )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_masks_follow_the_bounds() -> None:
    first, second = (torch.tensor(bounds, dtype=torch.int32) for bounds in ([0, 2, 5], [0, 4, 5]))
    query = torch.randn(1, 2, 5, 16)
    with torch.no_grad():
        found = [flex.attend(nn.Module(), query, query, query, None, cu_seq_lens_q=each)[0] for each in (first, second)]
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("what", [{"s_aux": torch.zeros(4)}, {"dropout": 0.1}])
def test_what_is_not_built_says_so(what: dict[str, object]) -> None:
    query = torch.randn(1, 2, 5, 16)
    with pytest.raises(ragged.Unfit):
        flex.attend(nn.Module(), query, query, query, None, **what)


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
def test_a_model_asked_through_it_says_what_it_says_plainly(name: str) -> None:
    from test_predict import built, samples

    from tunesmith.data.batching.collate import join

    batch, said = join(samples(), range(4)), []
    for within in (flex.NAME, ragged.NAME):
        asked = predictor(built(name).to(DEVICE), within=within)
        assert asked.ragged and asked.model.config._attn_implementation == within
        with torch.no_grad():
            found = asked(
                batch.input_ids.to(DEVICE), batch.position_ids.to(DEVICE), None, batch.places.to(DEVICE),
                batch.bounds.to(DEVICE), batch.longest,
            )  # fmt: skip
            said.append(found.cross_entropy(batch.targets.to(DEVICE)))
    torch.testing.assert_close(said[0], said[1], rtol=1e-5, atol=0)
