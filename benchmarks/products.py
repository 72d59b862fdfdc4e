"""What a layer's matrix products reach of the machine's own rate, and ways to speed them up that were tried and left out.

    python benchmarks/products.py [--tokens 512,1024,2048] [--tiny]

One layer's products of the 0.5 B shape, forward and backward, in bf16: as they are, with q, k, v and gate, up as one
product each, and with weights packed as oneDNN wants them.  Ours alone; knows shapes and torch, nothing of training.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import report
import torch
from processes import THREADS
from torch import Tensor
from torch.nn.functional import linear

WIDTH, NARROW, INNER = 896, 128, 4864
APART = (
    (WIDTH, WIDTH),
    (NARROW, WIDTH),
    (NARROW, WIDTH),
    (WIDTH, WIDTH),
    (INNER, WIDTH),
    (INNER, WIDTH),
    (WIDTH, INNER),
)
TOGETHER = ((WIDTH + 2 * NARROW, WIDTH), (WIDTH, WIDTH), (2 * INNER, WIDTH), (WIDTH, INNER))
"""Shapes of a layer's weights, (out, in): one product each, and with q, k, v and gate, up in one."""

SECONDS = 2.0
"""How long each way is repeated; the best time counts."""


def main() -> int:
    arguments = _arguments()
    shrink = 16 if arguments.tiny else 1
    torch.set_num_threads(int(THREADS))
    print(report.heading())
    rows = []
    for tokens in arguments.tokens:
        apart, together = (shapes_of(shapes, shrink) for shapes in (APART, TOGETHER))
        seconds = 0.1 if arguments.tiny else SECONDS
        ways = [best(apart, tokens, plain, seconds), best(together, tokens, plain, seconds)]
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            ways.append(best(apart, tokens, packed_ways, seconds))
        rate = 4 * tokens * sum(out * into for out, into in apart) / ways[0] / 1e12
        cells = [f"{1e3 * way:.1f} ms" for way in ways] + ["not on this processor"] * (3 - len(ways))
        rows.append((tokens, *cells, f"{rate:.2g} TFLOP/s"))
    head = (
        "tokens",
        "one by one",
        "q, k, v and gate, up together",
        "packed weights (twice the memory)",
        "rate, one by one",
    )
    print(report.table(head, rows))
    return 0


def shapes_of(shapes: Sequence[tuple[int, int]], shrink: int) -> list[tuple[int, int]]:
    """The shapes, each side divided by `shrink`."""
    return [(out // shrink, into // shrink) for out, into in shapes]


def best(
    shapes: Sequence[tuple[int, int]],
    tokens: int,
    prepare: Callable[[Tensor, int], tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]],
    seconds: float,
) -> float:
    """Least seconds that one pass forward and back through weights of `shapes` takes."""
    products = []
    for out, into in shapes:
        forward, backward = prepare(torch.randn(out, into).bfloat16(), tokens)
        products += [(forward, torch.randn(tokens, into).bfloat16()), (backward, torch.randn(tokens, out).bfloat16())]
    least, end = float("inf"), time.perf_counter() + seconds
    while least == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        for product, given in products:
            product(given)
        least = min(least, time.perf_counter() - began)
    return least


def plain(weight: Tensor, tokens: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """x W' and g W."""
    return lambda x: linear(x, weight), lambda g: g @ weight


def packed_ways(weight: Tensor, tokens: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The same with a copy of the weight for each way, packed beforehand."""
    forward, backward = (
        torch.ops.mkldnn._reorder_linear_weight(each.contiguous(), tokens) for each in (weight, weight.t())
    )
    return tuple(
        lambda given, one=one: torch.ops.mkldnn._linear_pointwise(given, one, None, "none", [], "")
        for one in (forward, backward)
    )  # type: ignore[return-value]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=lambda text: [int(one) for one in text.split(",")], default=[512, 1024, 2048])
    parser.add_argument("--tiny", action="store_true", help="a small layer, for a moment each")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
