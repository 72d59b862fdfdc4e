"""A training step of a model without its weights: shapes move, no number does, and what would lie in memory is counted.
Knows the trainer's own way of computing; knows no formula.

Tensors are fake ones of a CPU, whose autograd works everywhere.  What a GPU does otherwise is done so here: attention in
one kernel, and the loss in larger pieces.  The trials that decide how a model is asked need numbers: norms and gates are
tried in small real copies; of rows without padding and hidden states in place of logits it is taken that they pass.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tunesmith import catalog, log
from tunesmith.config.schema import Config
from tunesmith.data.sample import Batch
from tunesmith.estimate.live import Live
from tunesmith.estimate.shapes import packed_bytes
from tunesmith.estimate.state import state
from tunesmith.losses import pieces
from tunesmith.models import predict, ragged, recompute
from tunesmith.models.elementwise import lighten
from tunesmith.models.precision import Precision
from tunesmith.models.tuning.carried import ADAPTER
from tunesmith.models.tuning.fused import FusedLinear, fuse
from tunesmith.optim import build
from tunesmith.train.chosen_loss import COMPARING, token_loss
from tunesmith.train.objectives import NextToken

ATTENTION = "tunesmith_traced"
"""What the trace's attention is called in Transformers."""

NARROW = 16
"""Width of the linear layers of small copies."""


@dataclass(frozen=True, slots=True)
class Traced:
    """Bytes that the step takes at the most."""

    weights: int
    """Adapters included."""
    trained: int
    """Numbers that are trained."""
    optimizer: int
    to_come: int
    """All that is there beyond the weights at the moment at which that is most."""
    operations: float
    """Of products, forward and backward, but for attention on a GPU."""
    attended: float
    """Heads times their width, of all calls of attention in a kernel that is not counted."""
    hidden: int
    layers: int


def trace(
    cfg: Config,
    config: PreTrainedConfig,
    precision: Precision,
    lengths: Sequence[int],
    *,
    places: int,
    gpu: bool,
    bits: int | None = None,
) -> Traced:
    """A step with a micro-batch of rows of `lengths` tokens, of which `places` are trained.  `bits`: what frozen linear
    layers are held in."""
    with log.muted(), _fitting(lengths, gpu=gpu) as attended:
        with torch.device("meta"):
            model = _built(cfg, config, precision, bits, gpu=gpu)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _fill(model)
            model.train()
            beside = _before(cfg, model)
            with _Products() as counted:
                gradients, peak = _step(cfg, model, precision, _batch(lengths, places), _objective(cfg, model, beside))
        kept = state(build.build(model, cfg.optim))  # beyond the fake mode: optimizers read numbers
    weights = [*model.parameters(), *([] if beside is None else beside.parameters())]
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    to_come = kept.kept + max(peak, gradients + kept.moving)
    text = config.get_text_config()
    return Traced(
        sum(weight.nbytes for weight in weights),
        trained,
        kept.kept,
        to_come,
        counted.operations,
        sum(attended),
        text.hidden_size,
        text.num_hidden_layers,
    )


def _built(cfg: Config, config: PreTrainedConfig, precision: Precision, bits: int | None, *, gpu: bool) -> nn.Module:
    """The model as `policy.tuned` makes it, without a number."""
    config = copy.deepcopy(config)
    config.use_cache = False
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(
            config, dtype=precision.load_dtype(cfg.tuning), attn_implementation="eager"
        )
    if base._supports_flash_attn:
        base.set_attn_implementation(ATTENTION)
    elif base._supports_sdpa:
        base.set_attn_implementation("sdpa")
    if "lighter_layers" not in cfg.model.disable_speedups:
        _lighten(base)
    _join(base, whole=gpu)
    if (way := recompute.ASKED.get(cfg.model.gradient_checkpointing)) is not None:
        recompute.recompute(base, way)
    made: nn.Module = catalog.find("tuning", cfg.tuning.finetuning_type)(base, cfg.tuning, precision=precision)
    if isinstance(made, PeftModel) and (bits or "fused_adapters" not in cfg.model.disable_speedups):
        fuse(made, in_place=cfg.model.gradient_checkpointing != "selective")
    if bits:
        _quantize(made, bits)
    return made


def _lighten(model: nn.Module) -> None:
    """Let norms and gates compute in the lighter way whose small real copies pass the trial."""
    found: dict[Any, Callable[..., Any] | None] = {}
    for module in model.modules():
        if type(module).__name__.endswith(("RMSNorm", "MLP")):
            kind = (type(module), *(weight.shape for weight in module.parameters()))
            if kind not in found:
                small = _small(module)
                lighten(small)
                way = vars(small).get("forward")
                found[kind] = way.__func__ if way is not None else None
            if (forward := found[kind]) is not None:
                module.forward = MethodType(forward, module)


def _join(model: PreTrainedModel, *, whole: bool) -> None:
    """Have the gradient of an embedding that is one weight with the head added to the head's in place, which autograd does
    not while tensors are counted.  `whole`: as a matrix, not where rows were read alone."""

    def read(self: nn.Module, ids: Tensor) -> Tensor:
        with torch.no_grad():
            rows = type(self).forward(self, ids)
        out: Tensor = _Read.apply(rows, self.weight, whole)
        return out

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear) and embedding.weight is head.weight:
        module: nn.Module = embedding
        module.forward = MethodType(read, module)


class _Read(torch.autograd.Function):
    """Rows of a weight whose gradient is the head's."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, whole: bool) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.whole = whole
        return rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        if ctx.whole:
            torch.empty_like(ctx.saved_tensors[0])
        return None, None, None


def _small(module: nn.Module) -> nn.Module:
    """A copy with real numbers, its linear layers narrow."""
    with torch.device("cpu"):
        copied = copy.deepcopy(module)
        for name, child in list(copied.named_modules()):
            if type(child) is nn.Linear:
                owner, _, own = name.rpartition(".")
                setattr(copied.get_submodule(owner), own, nn.Linear(NARROW, NARROW))
        for child in copied.modules():
            for name, weight in child.named_parameters(recurse=False):
                if weight.is_meta:
                    child.register_parameter(name, nn.Parameter(torch.ones(weight.shape)))
    return copied


def _fill(model: nn.Module) -> None:
    """Put fake tensors in the place of those without storage; one that several modules share stays one."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) not in made:
                empty = torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
                made[id(weight)] = nn.Parameter(empty, requires_grad=weight.requires_grad)
            module.register_parameter(name, made[id(weight)])
        for name, held in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(held.shape, dtype=held.dtype, device="cpu")


def _batch(lengths: Sequence[int], places: int) -> Batch:
    tokens = sum(lengths)
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    asked = torch.zeros(places, dtype=torch.int64)
    return Batch(
        input_ids=ids,
        attention_mask=ids,
        position_ids=ids,
        places=asked,
        targets=asked,
        rows=range(len(lengths)),
        tokens=tokens,
        packed=True,
        bounds=torch.zeros(len(lengths) + 1, dtype=torch.int32),
        longest=max(lengths),
    )


def _before(cfg: Config, model: nn.Module) -> nn.Module | None:
    """A second model that tells what the first said before it was tuned; None where none is needed."""
    if cfg.optim.loss not in COMPARING or isinstance(model, PeftModel):
        return None
    return copy.deepcopy(model).requires_grad_(False).eval()


def _objective(cfg: Config, model: nn.Module, beside: nn.Module | None) -> NextToken:
    """The loss that the options name."""
    each = token_loss(cfg.optim)
    if cfg.optim.loss not in COMPARING:
        return NextToken(each)
    return NextToken(each, _asked(cfg, model).before_tuning if beside is None else _asked(cfg, beside).told)


def _step(cfg: Config, model: nn.Module, precision: Precision, batch: Batch, objective: NextToken) -> tuple[int, int]:
    """Bytes of the gradients, and the most until they are there, beyond weights and what the optimizer keeps."""
    policy = _asked(cfg, model)
    dtype = precision.autocast
    autocast = nullcontext() if dtype is None else torch.autocast("cpu", dtype, cache_enabled=False)
    with Live() as live:
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.zeros_like(weight)
        gradients = live.peak = live.now
        with autocast:
            cost = objective(policy, batch).total
        cost.backward()
        del cost
        return gradients, live.peak


def _asked(cfg: Config, model: nn.Module) -> predict.Predictor:
    """The model asked for hidden states where its head is a plain linear map, unless options want whole logits."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal, PreTrainedModel)
    head = None if "fused_loss" in cfg.model.disable_speedups else next(predict.heads(causal), None)
    return predict.Predictor(model, head, ragged=True)


@contextmanager
def _fitting(lengths: Sequence[int], *, gpu: bool) -> Iterator[list[int]]:
    """Have attention and the loss do what they do with rows of these lengths, on a GPU or a CPU.  The list gets heads times
    their width of each call of attention that is not made of products."""
    attended = list[int]()

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **said: Any
    ) -> tuple[Tensor, None]:
        if gpu and not said.get("softcap"):
            attended.append(query.shape[1] * query.shape[3])
            return _OneKernel.apply(query, key, value), None
        return ragged.attend(module, query, key, value, attention_mask, **said, lengths=lengths)

    AttentionInterface.register(ATTENTION, attend)
    chunk, block = pieces.CHUNK["cpu"], pieces.BLOCK["cpu"]
    if gpu:
        pieces.CHUNK["cpu"], pieces.BLOCK["cpu"] = pieces.CHUNK["cuda"], pieces.BLOCK["cuda"]
    ragged.forget()  # what is kept there is real
    try:
        yield attended
    finally:
        ragged.forget()
        pieces.CHUNK["cpu"], pieces.BLOCK["cpu"] = chunk, block


class _Products(TorchDispatchMode):
    """Counts the operations of products by torch's own formulas.  Torch's counter also follows modules, by which all that is
    computed a second time lives until the step's end."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func._overloadpacket is torch.ops.aten._grouped_mm:
            return self._of_experts(args[0], args[1], args[2] if len(args) > 2 else (kwargs or {}).get("offs"))
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
        return out

    def _of_experts(self, one: Tensor, other: Tensor, offs: Tensor | None) -> Tensor:
        """A product in which each expert has its own rows, in any format: for tensors without numbers torch knows it in bf16
        alone.  Every row is multiplied once, however many experts there are."""
        assert one.ndim == 2 and offs is not None, "rows lie behind one another"
        (rows, inner), columns = one.shape, other.shape[-1]
        self.operations += 2.0 * rows * inner * columns
        return one.new_empty((rows, columns) if other.ndim == 3 else (len(offs), rows, columns))


class _OneKernel(torch.autograd.Function):
    """Attention as a GPU's kernel keeps it: queries, keys, values, the result, and a number for each token and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.given = [each.dtype for each in (query, key, value)]
        if torch.is_autocast_enabled("cpu"):
            query, key, value = (each.to(torch.get_autocast_dtype("cpu")) for each in (query, key, value))
        rows, heads, tokens, width = query.shape
        out = query.new_empty(rows, tokens, heads, width)
        kept = out, query.new_empty(rows, heads, tokens, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, *kept)
        return out if out.dtype != torch.float32 else out.clone()  # rows one by one, then put together

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(each).to(kind) for each, kind in zip(ctx.saved_tensors, ctx.given, strict=False))


def _quantize(model: nn.Module, bits: int) -> None:
    """Hold the frozen linear layers beside adapters in so many bits."""
    for module in model.modules():
        if isinstance(module, FusedLinear):
            weight = module.base_layer.weight
            module.base_layer.shape = tuple(weight.shape)
            packed = torch.empty(packed_bytes(weight.numel(), bits), dtype=torch.uint8, device=weight.device)
            module.base_layer.weight = nn.Parameter(packed, requires_grad=False)
            module.__class__ = _QuantizedLinear


class _QuantizedLinear(FusedLinear):
    """A fused layer whose frozen weight is made of its short form when it is needed, and not kept."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base, first, second = self.base_layer, self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return _Quantized.apply(x.to(dtype), base.weight, base.shape, base.bias, first, second)


class _Quantized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        packed: Tensor,
        shape: tuple[int, int],
        bias: Tensor | None,
        first: Tensor,
        second: Tensor,
    ) -> Tensor:
        a, b = first.to(x.dtype), second.to(x.dtype)
        rows = x.reshape(-1, x.shape[-1])
        narrow = rows @ a.t()
        out = F.linear(x, torch.empty(shape, dtype=x.dtype), None if bias is None else bias.to(x.dtype))
        out.view(-1, out.shape[-1]).addmm_(narrow, b.t())
        ctx.save_for_backward(rows, narrow, packed, first, second)
        ctx.shape = shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, _, first, second = ctx.saved_tensors
        a, b = first.to(grad.dtype), second.to(grad.dtype)
        flat = grad.reshape(-1, grad.shape[-1])
        by_narrow = flat @ b
        by_first, by_second = by_narrow.t() @ rows, flat.t() @ narrow
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = flat @ torch.empty(ctx.shape, dtype=grad.dtype)
            by_x = by_x.addmm_(by_narrow, a).view(*grad.shape[:-1], -1)
        return by_x, None, None, None, by_first.to(first.dtype), by_second.to(second.dtype)
