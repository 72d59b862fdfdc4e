"""Products of fp32 by oneDNN: as near the truth as torch's own, in whichever order factors lie, and only where they gain."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.models import fp32_products, products, ragged
from tunesmith.models.precision import BY_NAME

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the products that were not left to torch."""
    seen: list[tuple[int, ...]] = []
    own = fp32_products.product

    def product(one: Tensor, other: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append((*one.shape, other.shape[1]))
        return own(one, other, bias)

    monkeypatch.setattr(fp32_products, "product", product)
    with fp32_products.REPLACED.while_in_use():
        yield seen


def drawn(*shape: int, seed: int = 0, turned: bool = False) -> Tensor:
    rows, columns = shape if not turned else shape[::-1]
    made = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return made.t() if turned else made


def is_right(found: Tensor, truth: Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=1e-5 * float(truth.abs().max()))


@pytest.mark.parametrize("one_turned", [False, True])
@pytest.mark.parametrize("other_turned", [False, True])
@pytest.mark.parametrize("piece", [1 << 21, 7 * 320])
def test_products_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, taken: list[tuple[int, ...]], one_turned: bool, other_turned: bool, piece: int
) -> None:
    monkeypatch.setattr(fp32_products, "PIECE", piece)
    one, other = drawn(100, 80, turned=one_turned), drawn(80, 320, seed=1, turned=other_turned)
    truth, start = one.double() @ other.double(), torch.randn(320)
    is_right(one @ other, truth)
    is_right(F.linear(one, other.t(), start), truth + start.double())
    assert taken == [(100, 80, 320)] * 2
    into = drawn(100, 320, seed=2)
    scaled = 0.5 * into.double() - 2 * truth
    is_right(torch.addmm(into, one, other, beta=0.5, alpha=-2), scaled)
    is_right(torch.addmm(start, one, other, beta=0.5), 0.5 * start.double() + truth)
    is_right(into.addmm_(one, other, beta=0.5, alpha=-2), scaled)
    is_right(torch.full((100, 320), torch.nan).addmm_(one, other, beta=0), truth)
    assert sum(rows for rows, _, _ in taken[2:]) == 400


def test_a_layer_and_its_gradients(taken: list[tuple[int, ...]]) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        given = [drawn(90, 100), drawn(400, 100, seed=1), drawn(1, 400, seed=2)[0]]
        x, weight, bias = (each.to(dtype).requires_grad_() for each in given)
        out = F.linear(x.view(2, 45, 100), weight, bias)
        out.backward(drawn(90, 400, seed=3).to(dtype).view(out.shape))
        found.append([out.detach(), x.grad, weight.grad, bias.grad])
    assert taken == [(90, 100, 400), (90, 400, 100)]
    for single, double in zip(*found, strict=True):
        assert single is not None and double is not None
        is_right(single, double)


@pytest.mark.parametrize("odd", [drawn(80, 640)[:, ::2], drawn(80, 640)[:, :320]], ids=["gaps", "part of rows"])
def test_a_second_factor_that_is_not_dense_is_left_to_torch(taken: list[tuple[int, ...]], odd: Tensor) -> None:
    one = drawn(100, 80)
    is_right(one @ odd, one.double() @ odd.double())
    assert not taken
    is_right(odd @ drawn(320, 90), odd.double() @ drawn(320, 90).double())
    assert taken == ([(80, 320, 90)] if odd.stride(1) == 1 else [])


def test_what_is_small_empty_of_other_numbers_or_wrong(taken: list[tuple[int, ...]]) -> None:
    is_right(drawn(10, 20) @ drawn(20, 30), drawn(10, 20).double() @ drawn(20, 30).double())
    assert (drawn(3000, 0) @ drawn(0, 4000)).abs().max() == 0
    assert (drawn(100, 300).bfloat16() @ drawn(300, 100).bfloat16()).dtype == torch.bfloat16
    assert not taken
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        drawn(300, 400) @ drawn(500, 600)
    with pytest.raises(RuntimeError, match="same dtype"):
        drawn(300, 400) @ drawn(400, 600).double()


def test_the_same_twice_is_the_same_bits() -> None:
    assert torch.equal(drawn(333, 257) @ drawn(257, 129), drawn(333, 257) @ drawn(257, 129))


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
@pytest.mark.parametrize("maker", ["GenuineIntel", "AuthenticAMD", ""])
def test_where_they_are_slow(monkeypatch: pytest.MonkeyPatch, capability: str, maker: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(fp32_products, "told_of_cpu", lambda name: maker)
    slow = (capability, maker) == ("AVX512", "AuthenticAMD")
    assert fp32_products.are_slow(CPU, BY_NAME["fp32"]) is slow
    assert not fp32_products.are_slow(CPU, BY_NAME["bf16"])
    assert not fp32_products.are_slow(torch.device("cuda"), BY_NAME["fp32"])


def test_numbers_of_tokens_are_even_where_products_are_built_for_them() -> None:
    assert ragged.multiple(CPU, torch.float32) == ragged.EVEN
    with fp32_products.REPLACED.while_in_use(False):
        assert ragged.multiple(CPU, torch.float32) == 1
    assert fp32_products.REPLACED.in_use


def test_where_address_space_is_limited_the_system_is_asked_before_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Room:
        def __init__(self, file: int, size: int) -> None:
            asked.append(size - products.BESIDE)

        def close(self) -> None:
            pass

    monkeypatch.setattr(products.mmap, "mmap", Room)
    with products.ASKING.while_in_use():
        is_right(drawn(10, 20) @ drawn(20, 30), drawn(10, 20).double() @ drawn(20, 30).double())
        torch.baddbmm(torch.zeros(1), torch.ones(2, 3, 4), torch.ones(2, 4, 5))
    assert asked[0] == 4 * (10 * 20 + 20 * 30 + 10 * 30) and asked[-1] == 4 * 2 * (12 + 20 + 15)
