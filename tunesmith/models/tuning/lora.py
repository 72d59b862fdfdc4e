"""LoRA: small trained matrices beside frozen weights, through peft.  Knows adapters; knows nothing of optimizers."""

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith import log
from tunesmith.config.tuning import TuningConfig
from tunesmith.log import OptionError
from tunesmith.models import quantized, structure
from tunesmith.models.precision import Precision, settle
from tunesmith.models.recompute import need_no_gradients_of_inputs
from tunesmith.models.tuning import adapters as adapter_files
from tunesmith.models.tuning import targets
from tunesmith.models.tuning.carried import ADAPTER, carry, factors_of, joined, negated
from tunesmith.models.weights import quiet
from tunesmith.models.where import Source

STARTS: dict[str, bool | str] = {
    "kaiming": True,
    "zero": True,
    "normal": "gaussian",
    "gaussian": "gaussian",
    "orthogonal": True,
    "pissa": "pissa",
    "olora": "olora",
    "loftq": True,
}
"""`lora_init` -> what peft calls it."""
FROM_THE_BASE = ("pissa", "olora")
"""Starts that take the first matrices out of the base's weights, and so change it."""


def apply(
    model: PreTrainedModel,
    cfg: TuningConfig,
    *,
    precision: Precision,
    adapters: Sequence[Source] = (),
    rows: Sequence[int] = (),
) -> PeftModel:
    """The model with frozen weights and one trained adapter, which trains also the `rows` of new tokens.

    Of `adapters`, all but the last are merged and the last is trained on; with `create_new_adapter` all are merged and a
    fresh one is trained.  Fresh matrices are drawn from torch's generator, which the caller seeds: a run that is resumed
    must seed it the same.  What is saved loads on the unchanged base model in every case.  Raises OptionError for
    targets that match nothing and starts that do not go, ModelError for adapters that do not fit.
    """
    found = adapter_files.read_all(adapters)
    goes_on = bool(found) and not cfg.create_new_adapter
    below = found[:-1] if goes_on else found
    model, factors = adapter_files.merge_keeping(model, below, strict=True)
    keep_dtype = precision.trained != torch.float32
    if goes_on:
        tuned = adapter_files.put_on(model, found[-1], trained=True, keep_dtype=keep_dtype)
        _say_own_settings(found[-1].config, below)
        if rows and not _trains_rows(model, found[-1].config):
            raise OptionError("add_tokens: the adapter that is trained on has no rows for them; set create_new_adapter")
    else:
        tuned = _fresh(model, cfg, keep_dtype, rows)
        if cfg.lora_init in FROM_THE_BASE:
            factors = joined(factors, negated(factors_of(tuned)))
    _check_dora(tuned.peft_config[ADAPTER], bool(factors))
    holds = tuple(dict.fromkeys(name for a in below for name in (*a.holds, a.source.name)))
    carry(tuned, factors, holds)
    if below:
        log.note(
            "adapter_name_or_path", f"what is saved will hold {', '.join(holds)} too: load it alone on the base model"
        )
    settle(tuned, precision)
    return tuned


def _trains_rows(model: PreTrainedModel, config: LoraConfig) -> bool:
    """Whether an adapter trains rows of the embeddings, or all of them."""
    whole = config.modules_to_save or ()
    names = [name for name, module in model.named_modules() if module is model.get_input_embeddings()]
    return bool(config.trainable_token_indices) or any(name.endswith(tuple(whole)) for name in names)


def _fresh(model: PreTrainedModel, cfg: TuningConfig, keep_dtype: bool, rows: Sequence[int]) -> PeftModel:
    wanted = targets.resolve(model, cfg.lora_target)
    beside = targets.check_names(model, cfg.additional_target, "additional_target")
    _check_whole(model, beside)
    tied = structure.tied_names(model)
    if one := structure.named_by(wanted, tied):
        raise OptionError(
            f"lora_target: {one[0]} is one weight with {', '.join(set(tied) - set(one[:1]))} in this model, which LoRA on "
            "either would part; additional_target trains it in full"
        )
    config = LoraConfig(
        r=cfg.lora_rank,
        lora_alpha=cfg.lora_alpha if cfg.lora_alpha is not None else 2 * cfg.lora_rank,
        lora_dropout=cfg.lora_dropout,
        target_modules=wanted,
        modules_to_save=beside or None,
        trainable_token_indices=_rows_of(model, rows, wanted, beside),
        ensure_weight_tying=bool(structure.named_by(beside, tied)),
        use_rslora=cfg.use_rslora,
        use_dora=cfg.use_dora,
        init_lora_weights=_start(model, cfg, wanted),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in _modules(model, wanted)),
        bias="none",
        task_type="CAUSAL_LM",
    )
    _say_experts(model)
    sample = _smallest(model, wanted)
    before = sample.get_parameter("weight").detach().float().clone() if cfg.lora_init in FROM_THE_BASE else None
    with quiet():
        tuned = get_peft_model(model, config, autocast_adapter_dtype=not keep_dtype)
        need_no_gradients_of_inputs(model)
    layers = [module for module in tuned.modules() if isinstance(module, LoraLayer)]
    if cfg.lora_init == "orthogonal":
        for layer in layers:
            for first in layer.lora_A.values():
                nn.init.orthogonal_(first.weight)
    if cfg.lora_init not in FROM_THE_BASE:
        at_zero = [second.weight for layer in layers for second in layer.lora_B.values()]
        at_zero += [first for layer in layers for first in layer.lora_embedding_A.values()]
        assert not any(not weight.is_meta and weight.any() for weight in at_zero), "step 0 is the base"
    if before is not None:
        _check_sum(next(layer for layer in layers if layer.get_base_layer() is sample), before)
    return tuned


def _check_whole(model: PreTrainedModel, beside: Sequence[str]) -> None:
    """Raise OptionError when a module that is to be trained in full is held in few bits."""
    names = [name for name, module in model.named_modules() if any(map(quantized.is_held, module.modules()))]
    if few := structure.named_by(beside, names):
        raise OptionError(
            f"additional_target: {few[0]} is held in few bits (quantization_bit), which cannot be trained"
        )


def _rows_of(
    model: PreTrainedModel, rows: Sequence[int], wanted: Sequence[str], beside: Sequence[str]
) -> dict[str, list[int]] | None:
    """Which rows of which modules are trained beside LoRA, for peft; None for none.  A head that is one weight with the
    embeddings follows them; modules that are trained in full need no word."""
    if not rows:
        return None
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.Linear) and module in ends
    ]
    if both := structure.named_by(wanted, names):
        raise OptionError(
            f"lora_target: {both[0]} cannot have LoRA beside rows of new tokens; additional_target trains it in full"
        )
    names = [name for name in names if not structure.named_by(beside, [name])]
    if structure.tied_names(model):
        names = names[:1]
    return {name.rpartition(".")[2]: list(rows) for name in names} or None


def _start(model: PreTrainedModel, cfg: TuningConfig, wanted: Sequence[str]) -> bool | str:
    """peft's name of `lora_init`.  Raises OptionError for one that cannot start these modules."""
    if cfg.lora_init in FROM_THE_BASE:
        for module in _modules(model, wanted):
            if isinstance(module, nn.Embedding) or (cfg.lora_init == "olora" and isinstance(module, Conv1D)):
                raise OptionError(f"lora_init: {cfg.lora_init} cannot start a module of type {type(module).__name__}")
            smallest = min(side for weight in module.parameters() if weight.ndim == 2 for side in weight.shape)
            if cfg.lora_rank > smallest:
                raise OptionError(
                    f"lora_rank: {cfg.lora_init} takes at most the smallest side of each matrix, here {smallest}; got "
                    f"{cfg.lora_rank}"
                )
    if cfg.lora_init == "pissa" and cfg.pissa_iter >= 0:
        return f"pissa_niter_{cfg.pissa_iter}"
    return STARTS[cfg.lora_init]


def _smallest(model: PreTrainedModel, wanted: Sequence[str]) -> nn.Module:
    return min(_modules(model, wanted), key=lambda module: sum(weight.numel() for weight in module.parameters()))


@torch.no_grad()
def _check_sum(layer: LoraLayer, before: Tensor) -> None:
    """A start that was taken out of the base leaves, with what is left there, the base: to its number format's rounding."""
    base = layer.get_base_layer().weight
    change = layer.get_delta_weight(ADAPTER).float()
    apart = (base.float() + change - before).abs().max()
    assert apart <= 16 * torch.finfo(base.dtype).eps * before.abs().max(), "step 0 is the base"


def _modules(model: PreTrainedModel, wanted: Sequence[str]) -> list[nn.Module]:
    chosen = set(structure.named_by(wanted, [name for name, _ in model.named_modules()]))
    return [module for name, module in model.named_modules() if name in chosen]


def _check_dora(config: LoraConfig, base_changed: bool) -> None:
    if config.use_dora and base_changed:
        raise OptionError(
            "use_dora: it does not go with a start from the base's weights (pissa, olora) or with merged adapters, for "
            "what is saved would not load on the base model"
        )


def _say_own_settings(config: LoraConfig, below: Sequence[object]) -> None:
    log.note(
        "adapter_name_or_path",
        f"training goes on with the {'last' if below else 'given'} adapter's own rank {config.r}, alpha "
        f"{config.lora_alpha}, dropout {config.lora_dropout} and targets; lora_* options have no effect on it",
    )


def _say_experts(model: PreTrainedModel) -> None:
    experts = structure.endings(name for name, weight in model.named_parameters() if weight.ndim == 3)
    if experts:
        log.note("lora_target", f"weights of experts ({', '.join(experts)}) are no linear modules and get no LoRA")
