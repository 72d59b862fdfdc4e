"""Attention over rows behind one another is attention within each row."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tunesmith.models import ragged

LENGTHS = (3, 9, 1, 6)


def tensors(dtype: torch.dtype = torch.float32, value_width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    shapes = ((4, 8), (2, 8), (2, value_width))
    query, key, value = (torch.randn(1, h, sum(LENGTHS), w, generator=random).to(dtype) for h, w in shapes)
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


def alone(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
    """Written out, row by row and head by head."""
    done = []
    for q, k, v in zip(*(each.split(LENGTHS, 2) for each in (query, key, value)), strict=True):
        scores = q @ k.repeat_interleave(2, 1).transpose(2, 3) * scale
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        back = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
        seen = (back >= 0) if window is None else (back >= 0) & (back < window)
        done.append(torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v.repeat_interleave(2, 1))
    return torch.cat(done, 2).transpose(1, 2)


@pytest.mark.parametrize(("short", "multiple_of"), [(0, 1), (512, 1), (512, 32)])
@pytest.mark.parametrize("window", [None, 2, 4])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("value_width", [8, 6])
def test_each_row_sees_itself_alone(
    monkeypatch: pytest.MonkeyPatch,
    short: int,
    multiple_of: int,
    window: int | None,
    softcap: float | None,
    value_width: int,
) -> None:
    monkeypatch.setattr(ragged, "SHORT", short)
    bounds = F.pad(torch.tensor(LENGTHS), (1, 0)).cumsum(0).int()
    found = []
    for written_out in (False, True):
        given = tensors(value_width=value_width)
        if written_out:
            out = alone(*given, 0.3, window, softcap)
        else:
            out, _ = ragged.attend(
                nn.Module(), *given, None, scaling=0.3, sliding_window=window, softcap=softcap, cu_seq_lens_q=bounds,
                max_length_q=max(LENGTHS), multiple_of=multiple_of,
            )  # fmt: skip
        (out * torch.arange(out.numel()).view(out.shape).cos()).sum().backward()
        found.append([out.detach(), *(each.grad for each in given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_not_built_says_so() -> None:
    with pytest.raises(ragged.Unfit):
        ragged.attend(nn.Module(), *tensors(), None, s_aux=torch.zeros(4))


@pytest.mark.parametrize("window", [None, 4])
def test_a_gpu_s_kernel_is_called_as_torch_declares_it(window: int | None) -> None:
    with FakeTensorMode(), torch.no_grad():  # shapes and formats alone; without a GPU nothing can be computed
        shapes = ((4, 8), (2, 8), (2, 8))
        given = (torch.empty(1, h, sum(LENGTHS), w, device="cuda", dtype=torch.bfloat16) for h, w in shapes)
        bounds = torch.empty(len(LENGTHS) + 1, dtype=torch.int32, device="cuda")
        found, _ = ragged.attend(
            nn.Module(), *given, None, sliding_window=window, cu_seq_lens_q=bounds, max_length_q=max(LENGTHS)
        )
        assert found.shape == (1, sum(LENGTHS), 4, 8) and found.dtype == torch.bfloat16
