"""Norms and gated activations that keep less for the way back, in place of those that agree with them in a trial.

A model's own norm keeps a copy in fp32; its gated layer keeps the activation beside what it came from.  Here both are
made again from what is kept in any case.  Knows modules and tensors; knows no architecture: names are only where to look,
and a module that computes anything else stays as it is.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from tunesmith.compiled import compilable

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""How far the same norm or activation may part from the module's own, relative to its largest value."""

Way = Callable[[Any, Tensor], Tensor]


def lighten(model: nn.Module) -> dict[str, int]:
    """Let norms and gated layers that pass a trial compute in the lighter way; returns how many of each do."""
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    gates = [module for module in model.modules() if type(module).__name__.endswith("MLP")]
    was_training = model.training
    model.eval()  # dropout would make any two results differ
    with torch.no_grad():
        plain = plain_weight(model)
        found = {"norms": sum(map(_lighten_norm, norms)), "gates": sum(_lighten_gate(gate, plain) for gate in gates)}
    model.train(was_training)
    return found


def add_rows_read(model: PreTrainedModel) -> bool:
    """Let the gradient of embeddings that are one weight with the head be added to the head's where rows were read, instead
    of as one more matrix that is zero elsewhere; whether they are such.  For one process that calls `backward`: the rows go
    to the weight's `grad` past torch's engine, which would make another matrix of the sum, and past what averages over
    processes."""
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if not (isinstance(ends[0], nn.Embedding) and isinstance(ends[1], nn.Linear) and ends[0].weight is ends[1].weight):
        return False
    module: Any = ends[0]
    if type(module).forward is nn.Embedding.forward and module.max_norm is None and not module.scale_grad_by_freq:
        module.forward = MethodType(_read, module)
    else:  # one that does more, by torch's own function
        module.sparse = True
    return True


def _read(self: Any, ids: Tensor) -> Tensor:
    weight = self.weight
    if not torch.is_grad_enabled() or not weight.requires_grad:
        return F.embedding(ids, weight, self.padding_idx)
    if (
        weight._backward_hooks or weight._post_accumulate_grad_hooks
    ):  # which are to see the gradient as a whole, as BAdam's
        return F.embedding(ids, weight, self.padding_idx, sparse=True)
    out: Tensor = _RowsRead.apply(torch.zeros((), requires_grad=True), ids, self)
    return out


def elements(model: nn.Module) -> int:
    """Elements per token that the lightened modules pass over, at least: a norm of each head counts as one head."""
    light = [module for module in model.modules() if "forward" in vars(module)]
    norms = [module.get_parameter("weight") for module in light if type(module).__name__.endswith("RMSNorm")]
    gates = [module.get_submodule("down_proj") for module in light if type(module).__name__.endswith("MLP")]
    matrices = [matrix for gate in gates if (matrix := matrix_of(gate)) is not None]
    return sum(len(weight) for weight in norms) + sum(matrix.shape[-1] for matrix in matrices)


def matrix_of(linear: nn.Module) -> Tensor | None:
    """A matrix [..., inputs] of numbers in a linear module: its weight, or LoRA's first one where that is held in few bits."""
    return next((weight for weight in linear.parameters() if weight.ndim == 2 and weight.is_floating_point()), None)


def plain_weight(model: nn.Module) -> Tensor:
    """A weight of the format in which the model holds what is not trained; of any format where all is trained."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    return next((weight for weight in weights if not weight.requires_grad), weights[0])


def _lighten_norm(module: nn.Module) -> bool:
    """Whether the module is one of the known norms, which it now computes in the lighter way."""
    parts = dict(module.named_parameters(recurse=False))
    values = vars(module)
    eps = values.get("variance_epsilon", values.get("eps"))
    if list(parts) != ["weight"] or parts["weight"].ndim != 1 or not isinstance(eps, float):
        return False
    ways = tuple(_norm(eps, around_one=around_one) for around_one in (False, True))
    return _take_first_that_agrees(module, ways, parts["weight"].shape[0], parts["weight"])


def _norm(eps: float, *, around_one: bool) -> Way:
    def forward(self: Any, x: Tensor) -> Tensor:
        out: Tensor = _Norm.apply(x, self.weight, eps, around_one)
        return out

    return forward


def _lighten_gate(module: nn.Module, plain: Tensor) -> bool:
    """The same of a gated layer: down(silu(gate(x)) * up(x)).  `plain`: a weight of the format that the layer reads, where
    its own is held in few bits."""
    parts = dict(module.named_children())
    if not {"gate_proj", "up_proj", "down_proj", "act_fn"} <= parts.keys():
        return False
    if type(parts["act_fn"]) is not nn.SiLU and type(parts["act_fn"]).__name__ != "SiLUActivation":
        return False
    matrix, weight = matrix_of(parts["gate_proj"]), next(parts["gate_proj"].parameters())
    like = weight if weight.is_floating_point() else plain
    return matrix is not None and _take_first_that_agrees(module, (_gated,), matrix.shape[-1], like)


def _gated(self: Any, x: Tensor) -> Tensor:
    out: Tensor = self.down_proj(_Gate.apply(self.gate_proj(x), self.up_proj(x)))
    return out


def _take_first_that_agrees(module: nn.Module, ways: tuple[Way, ...], width: int, like: Tensor) -> bool:
    tried = torch.linspace(-2, 3, 4 * width, device=like.device).view(1, 4, width).sin().to(like.dtype)
    own = module(tried)
    for way in ways:
        found = way(module, tried)
        if found.dtype == own.dtype and (found - own).abs().max() <= ROUNDING[own.dtype] * own.abs().max():
            module.forward = MethodType(way, module)
            return True
    return False


class _RowsRead(torch.autograd.Function):
    """Rows of an embedding's weight, whose gradient is added to them in its `grad`.  `start`: a number that asks for a
    gradient, by which torch knows that the way back leads here.  The weight itself is no input: torch would wait for this
    one before it makes `grad` of what the head gives."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, ids: Tensor, module: nn.Embedding) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.module = module
        return F.embedding(ids, module.weight.detach(), module.padding_idx)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        weight, padding, rows = ctx.module.weight, ctx.module.padding_idx, ctx.saved_tensors[0].flatten()
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        by_row = grad.reshape(-1, grad.shape[-1]).to(weight.dtype)
        if padding is not None:
            by_row = by_row.masked_fill((rows == padding).unsqueeze(1), 0)
        weight.grad.index_add_(0, rows, by_row)
        return None, None, None


class _Norm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight, in fp32 up to the weight; keeps x and the roots.  `around_one`: the weight is what
    is added to 1, and multiplied in fp32 too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, around_one: bool) -> Tensor:
        out, root = _normed(x, weight, eps, around_one)
        ctx.save_for_backward(x, weight, root)
        ctx.around_one = around_one
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, root = ctx.saved_tensors
        by_x, by_weight = _by_norm(grad, x, weight, root, ctx.around_one, ctx.needs_input_grad[1])
        return by_x, by_weight, None, None


@compilable
def _normed(x: Tensor, weight: Tensor, eps: float, around_one: bool) -> tuple[Tensor, Tensor]:
    exact = x.float()
    root = exact.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    normed = exact * root
    return normed.mul_(1.0 + weight.float()).to(x.dtype) if around_one else weight * normed.to(x.dtype), root


@compilable
def _by_norm(
    grad: Tensor, x: Tensor, weight: Tensor, root: Tensor, around_one: bool, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients by what is normed and, if `wanted`, by the weight."""
    normed = x.float() * root
    by_weight = (grad.float() * normed).flatten(0, -2).sum(0).to(weight.dtype) if wanted else None
    by_normed = grad.float() * (1.0 + weight.float() if around_one else weight.float())
    along = (by_normed * normed).mean(-1, keepdim=True)
    return by_normed.sub_(normed.mul_(along)).mul_(root).to(x.dtype), by_weight


class _Gate(torch.autograd.Function):
    """silu(gate) * up, which keeps only the two."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _through_gate(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return _by_gate(grad, *ctx.saved_tensors)


@compilable
def _through_gate(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate).mul_(up)


@compilable
def _by_gate(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by the two."""
    return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)
