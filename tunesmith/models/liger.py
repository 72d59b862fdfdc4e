"""Liger's kernels for norms, gated activations and rotary positions, in place of those that agree with them in a trial.

Modules stay the model's own, with their names and weights; only how each computes is replaced, for this model alone.
Knows modules and the package `liger_kernel`; knows no architecture: names are only where to look.
"""

import importlib.util
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.log import MissingExtra, OptionError
from tunesmith.models.elementwise import matrix_of, plain_weight

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""How far the same result may part from the module's own, relative to its largest value."""

ROTATE = "apply_rotary_pos_emb"
"""What Transformers calls the function that turns queries and keys by their positions."""

CASTS = ("llama", "gemma")
"""Where norms leave fp32, in Liger's words: before the weight, or after it."""

Way = Callable[[Any, Tensor], Tensor]


def wanted(written: bool | str, device: torch.device, option: str = "enable_liger_kernel") -> bool:
    """Whether `enable_liger_kernel`, or another `option`, as written, means Liger here: `auto` where there is a GPU and the package.  Raises
    OptionError without a GPU, MissingExtra without the package, when it was asked for."""
    installed = importlib.util.find_spec("liger_kernel") is not None
    if written is True:
        if device.type != "cuda":
            raise OptionError(f"{option}: Liger's kernels need a GPU, and this run computes on {device.type}")
        if not installed:
            raise MissingExtra(f"{option}: Liger is not installed; pip install 'tunesmith[liger]'")
    return written is not False and device.type == "cuda" and installed


def take(model: nn.Module) -> dict[str, int]:
    """Let norms, gated layers and rotary positions that agree with Liger's compute by it; returns how many of each do."""
    modules = list(model.modules())
    was_training = model.training
    model.eval()  # dropout would make any two results differ
    with torch.no_grad():
        plain = plain_weight(model)
        found = {
            "norms": sum(_norm(each) for each in modules if type(each).__name__.endswith("RMSNorm")),
            "gates": sum(_gate(each, plain) for each in modules if type(each).__name__.endswith("MLP")),
            "rotations": sum(_rotation(each) for each in modules if type(each).__name__.endswith("Attention")),
        }
    model.train(was_training)
    return found


def _norm(module: nn.Module) -> bool:
    parts, values = dict(module.named_parameters(recurse=False)), vars(module)
    eps = values.get("variance_epsilon", values.get("eps"))
    if list(parts) != ["weight"] or parts["weight"].ndim != 1 or not isinstance(eps, float):
        return False
    ways = tuple(_norm_way(eps, offset, cast) for offset in (0.0, 1.0) for cast in CASTS)
    return _take_first_that_agrees(module, ways, parts["weight"].shape[0], parts["weight"])


def _norm_way(eps: float, offset: float, cast: str) -> Way:
    from liger_kernel.ops import LigerRMSNormFunction

    def forward(self: Any, x: Tensor) -> Tensor:
        # Not in place: the gradient that comes back may be a residual's too.
        out: Tensor = LigerRMSNormFunction.apply(x, self.weight, eps, offset, cast, False)
        return out

    return forward


def _gate(module: nn.Module, plain: Tensor) -> bool:
    parts = dict(module.named_children())
    if not {"gate_proj", "up_proj", "down_proj", "act_fn"} <= parts.keys():
        return False
    matrix, weight = matrix_of(parts["gate_proj"]), next(parts["gate_proj"].parameters())
    like = weight if weight.is_floating_point() else plain
    return matrix is not None and _take_first_that_agrees(module, _gate_ways(), matrix.shape[-1], like)


def _gate_ways() -> tuple[Way, ...]:
    from liger_kernel.ops import LigerGELUMulFunction, LigerSiLUMulFunction

    def way(function: type[torch.autograd.Function]) -> Way:
        def forward(self: Any, x: Tensor) -> Tensor:
            out: Tensor = self.down_proj(function.apply(self.gate_proj(x), self.up_proj(x)))
            return out

        return forward

    return way(LigerSiLUMulFunction), way(LigerGELUMulFunction)


def _take_first_that_agrees(module: nn.Module, ways: tuple[Way, ...], width: int, like: Tensor) -> bool:
    tried = torch.linspace(-2, 3, 4 * width, device=like.device).view(1, 4, width).sin().to(like.dtype)
    own = module(tried)
    for way in ways:
        found = way(module, tried)
        if found.dtype == own.dtype and _agree(found, own):
            module.forward = MethodType(way, module)
            return True
    return False


def _rotation(module: nn.Module) -> bool:
    """Whether the attention turns its queries and keys as Liger does, which it now lets Liger do.

    The function is a global name of the file that the attention's `forward` stands in; this module gets a copy of
    `forward` in which that name alone means Liger's, so that no other model is touched."""
    forward = type(module).forward
    if not isinstance(forward, FunctionType) or ROTATE not in forward.__code__.co_names:
        return False
    own = forward.__globals__[ROTATE]
    if not _turns_alike(own, next(module.parameters()).device):
        return False
    known = {**forward.__globals__, ROTATE: _rotate}
    copy = FunctionType(forward.__code__, known, forward.__name__, forward.__defaults__, forward.__closure__)
    copy.__kwdefaults__ = forward.__kwdefaults__
    module.forward = MethodType(copy, module)
    return True


def _rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """`query` [rows, heads, tokens, width], `key` [rows, key-value heads, tokens, width], turned; `cos` and `sin` [rows,
    tokens, width]."""
    from liger_kernel.ops import LigerRopeFunction

    # Liger writes over what it is given, which may be kept for recomputation.
    turned: tuple[Tensor, Tensor] = LigerRopeFunction.apply(query.clone(), key.clone(), cos, sin)
    return turned


def _turns_alike(own: Callable[..., Any], device: torch.device) -> bool:
    angles = torch.linspace(0, 9, 3 * 8, device=device).view(1, 3, 8)
    angles = torch.cat((angles, angles), dim=-1)  # as Llama's: the second half of a head beside the first
    query, key = (torch.linspace(-2, 3, heads * 48, device=device).view(1, 3, heads, 16).sin() for heads in (4, 2))
    given = (query.transpose(1, 2), key.transpose(1, 2))
    try:
        plain = own(*given, angles.cos(), angles.sin())
    except (TypeError, ValueError, RuntimeError):  # what functions raise that take other arguments or shapes
        return False
    turned = _rotate(*given, angles.cos(), angles.sin())
    return all(_agree(found, expected) for found, expected in zip(turned, plain, strict=True))


def _agree(found: Tensor, own: Tensor) -> bool:
    return bool((found - own).abs().max() <= ROUNDING[own.dtype] * own.abs().max())
