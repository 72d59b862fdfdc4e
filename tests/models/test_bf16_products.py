"""Products of bf16 that are made in fp32: the numbers that fp32 gives, rounded once, whatever pieces they are made of."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.models import bf16_products
from tunesmith.models.precision import BY_NAME

CPU = torch.device("cpu")


@pytest.fixture
def taken() -> Iterator[None]:
    bf16_products.REPLACED.use(True)
    yield
    bf16_products.REPLACED.use(False)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def is_rounded(found: Tensor, truth: Tensor) -> None:
    """Half a unit in the last place of bf16, and what fp32 leaves of its own."""
    assert found.dtype == torch.bfloat16 and truth.dtype == torch.float32
    torch.testing.assert_close(found.float(), truth, rtol=2**-8, atol=1e-5 * float(truth.abs().max()))


@pytest.mark.parametrize("piece", [1 << 23, 64, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_is_fp32_s_rounded_once(
    taken: None, monkeypatch: pytest.MonkeyPatch, piece: int, turned: bool
) -> None:
    monkeypatch.setattr(bf16_products, "PIECE", piece)
    monkeypatch.setattr(bf16_products, "WIDEST", 7)
    one, other = drawn(20, 13), drawn(13, 17, seed=1)
    if turned:
        one, other = drawn(13, 20).t(), drawn(17, 13, seed=1).t()
    truth, start = one.float() @ other.float(), drawn(17, seed=2)
    is_rounded(one @ other, truth)
    is_rounded(torch.mm(one, other, out=drawn(20, 17)), truth)
    is_rounded(F.linear(one, other.t(), start), truth + start.float())
    into = drawn(20, 17, seed=3)
    scaled = 0.5 * into.float() - 2 * truth
    is_rounded(torch.addmm(into, one, other, beta=0.5, alpha=-2), scaled)
    is_rounded(into.addmm_(one, other, beta=0.5, alpha=-2), scaled)


@pytest.mark.parametrize("piece", [1 << 23, 300, 16])
def test_several_products_are_too(taken: None, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(bf16_products, "PIECE", piece)
    one, other = drawn(3, 11, 5), drawn(3, 5, 9, seed=1)
    truth = one.float() @ other.float()
    is_rounded(one @ other, truth)
    hidden = torch.zeros(9, dtype=torch.bfloat16).masked_fill_(torch.arange(9) > 6, -torch.inf)
    found = torch.baddbmm(hidden.expand(3, 11, 9), one, other, alpha=0.25)
    is_rounded(found[..., :7], 0.25 * truth[..., :7])
    assert (found[..., 7:] == -torch.inf).all()
    into = drawn(3, 11, 9, seed=2)
    scaled = 0.5 * into.float() - 2 * truth
    is_rounded(into.baddbmm_(one, other, beta=0.5, alpha=-2), scaled)


def test_attention_and_its_gradients(taken: None) -> None:
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        given = [drawn(1, 2, 9, 8, seed=seed).to(dtype).requires_grad_() for seed in range(3)]
        out = F.scaled_dot_product_attention(given[0], given[1], given[2], is_causal=True)
        out.backward(drawn(1, 2, 9, 8, seed=3).to(dtype))
        found.append([out.detach(), *(each.grad for each in given)])
    for short, whole in zip(*found, strict=True):
        assert short is not None and short.dtype == torch.bfloat16
        torch.testing.assert_close(short.float(), whole, rtol=2**-7, atol=2**-7)


def test_what_is_empty_narrow_or_wrong(taken: None) -> None:
    assert (drawn(3, 0) @ drawn(0, 4)).tolist() == torch.zeros(3, 4).tolist()
    assert (drawn(0, 3) @ drawn(3, 4)).shape == (0, 4)
    is_rounded(drawn(1, 40) @ drawn(9, 40, seed=1).t(), drawn(1, 40).float() @ drawn(9, 40, seed=1).float().t())
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        drawn(30, 4) @ drawn(5, 6)
    with pytest.raises(RuntimeError, match="same dtype"):
        drawn(30, 4) @ torch.zeros(4, 6)


def test_other_numbers_are_left_to_torch() -> None:
    one, other = torch.rand(30, 20), torch.rand(20, 10)
    plain = one @ other, torch.baddbmm(torch.rand(1), one[None], other[None], beta=0)
    bf16_products.REPLACED.use(True)
    try:
        found = one @ other, torch.baddbmm(torch.rand(1), one[None], other[None], beta=0)
        assert all(torch.equal(*pair) for pair in zip(plain, found, strict=True))
    finally:
        bf16_products.REPLACED.use(False)


@pytest.mark.parametrize("name", ["bf16", "pure_bf16", "fp32"])
def test_where_they_are_slow(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for has in (False, True):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda has=has: has)
        assert bf16_products.are_slow(CPU, BY_NAME[name]) is (name != "fp32" and not has)
    assert not bf16_products.are_slow(torch.device("cuda"), BY_NAME[name])
