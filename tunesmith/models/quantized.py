"""Holds a model's frozen linear weights in few bits, by bitsandbytes or HQQ.  Knows modules; knows no adapter.

bitsandbytes rounds weights while they are read (arXiv:2305.14314 for 4 bits, arXiv:2208.07339 for 8), HQQ those of a model
that was read (mobiusml.github.io/hqq_blog).  Both compute a product from weights that are made whole again for it.
"""

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from tunesmith import log
from tunesmith.config.model import ModelConfig
from tunesmith.log import ModelError
from tunesmith.models import structure

HQQ_GROUP = 64
"""Weights that share a scale and a zero point in HQQ, as bitsandbytes' blocks do."""


def for_reading(cfg: ModelConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """What Transformers is told so that it rounds weights while it reads them; None when it is not to."""
    if cfg.quantization_bit is None or cfg.quantization_method != "bnb":
        return None
    if cfg.quantization_bit == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=cfg.quantization_type,
        bnb_4bit_use_double_quant=cfg.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def settle(model: PreTrainedModel, cfg: ModelConfig, dtype: torch.dtype) -> None:
    """Make a model that was read ready: weights held by HQQ if asked for, and nothing that computes otherwise in
    evaluation than in training.  Tells what is held so."""
    if cfg.quantization_bit is None:
        return
    if cfg.quantization_method == "hqq":
        _hold_in_hqq(model, cfg.quantization_bit, dtype)
    else:
        _keep_as_trained(model)
    _leave_file(model)
    held = [module for module in model.modules() if is_held(module)]
    if not held:
        raise ModelError(
            f"{model.config.model_type} has no linear layers that {cfg.quantization_method} could quantize"
        )
    log.note("quantization_bit", f"{len(held)} linear layers are held in {cfg.quantization_bit} bits")


def is_quantized(model: nn.Module) -> bool:
    """Whether weights of the model are held in few bits."""
    return any(not weight.is_floating_point() for weight in model.parameters())


def is_held(module: nn.Module) -> bool:
    """Whether this very module holds its weight in few bits."""
    return any(not weight.is_floating_point() for weight in module.parameters(recurse=False))


def whole(module: nn.Module) -> Tensor:
    """A linear module's weight [outputs, inputs] in fp32 as products are computed from it."""
    weight: Tensor = dequantize_module_weight(module)
    return weight.detach().float()


def _hold_in_hqq(model: PreTrainedModel, bits: int, dtype: torch.dtype) -> None:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    for name in structure.linear_names(model):
        above, _, last = name.rpartition(".")
        layer = model.get_submodule(name)
        if isinstance(layer, nn.Linear):
            # Groups along inputs where they fit: what fills a last group up would be kept too.
            group = HQQ_GROUP if layer.weight.numel() % HQQ_GROUP == 0 else None
            settings = BaseQuantizeConfig(nbits=bits, group_size=group, axis=0)
            held = HQQLinear(layer, settings, compute_dtype=dtype, device=str(layer.weight.device))
            model.get_submodule(above).register_module(last, held)


def _leave_file(model: PreTrainedModel) -> None:
    """Copy what was not rounded out of the mapped file, all of which would else stay in memory for it."""
    for weight in model.parameters():
        if weight.device.type == "cpu" and weight.is_floating_point():
            weight.data = weight.data.clone()


def _keep_as_trained(model: PreTrainedModel) -> None:
    """On a CPU bitsandbytes packs 4-bit weights anew in evaluation, which wide matrices alone survive."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
