"""The model of a run, from its folder to the weights that are trained.  Knows the order; the models room knows how."""

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from tunesmith import catalog
from tunesmith.config.schema import Config
from tunesmith.log import note
from tunesmith.models.isolation import require_isolation
from tunesmith.models.load import attention_for, load_model
from tunesmith.models.predict import Predictor, predictor
from tunesmith.models.tuning.adapters import merge
from tunesmith.models.tuning.fused import fuse
from tunesmith.models.where import Source, find_adapters
from tunesmith.train.runtime import Runtime


def base_model(cfg: Config, source: Source, runtime: Runtime, *, trainable: bool) -> PreTrainedModel:
    """The base model on this process's device, in the precision its weights need."""
    chosen = attention(cfg, source, runtime)
    note("flash_attn", f"{cfg.model.flash_attn} means {chosen} here")
    return load_model(
        source,
        cfg.model,
        dtype=runtime.precision.load_dtype(cfg.tuning),
        device=runtime.device,
        trainable=trainable,
        attention=chosen,
    )


def attention(cfg: Config, source: Source, runtime: Runtime) -> str:
    """Transformers' name of the attention that the run's models compute with."""
    kind = runtime.precision
    return attention_for(source, cfg.model, dtype=kind.autocast or kind.weights, device=runtime.device)


def tuned_model(cfg: Config, source: Source, runtime: Runtime, *, isolated: bool) -> nn.Module:
    """The model with what `finetuning_type` trains made trainable; its random parts depend on the seed alone.
    `isolated`: rows hold samples that may not see each other.  Raises ModelError when the model lets them."""
    model = base_model(cfg, source, runtime, trainable=True)
    if isolated:
        with runtime.autocast():
            require_isolation(model)
    runtime.seed("weights", cfg.train.seed, every_rank_its_own=False)
    apply = catalog.find("tuning", cfg.tuning.finetuning_type)
    tuned: nn.Module = apply(model, cfg.tuning, precision=runtime.precision, adapters=find_adapters(cfg.model))
    if isinstance(tuned, PeftModel) and "fused_adapters" not in cfg.model.disable_speedups:
        fuse(tuned)
    return tuned


def asked(cfg: Config, model: PreTrainedModel | PeftModel) -> Predictor:
    """The model as the loop asks it: in the fastest of the ways that it passes a trial of."""
    chosen = predictor(
        model,
        no_padding=cfg.model.flash_attn in ("auto", "fa2") and "no_padding" not in cfg.model.disable_speedups,
        fused_loss="fused_loss" not in cfg.model.disable_speedups,
    )
    if cfg.model.flash_attn == "auto" and not chosen.ragged and "no_padding" not in cfg.model.disable_speedups:
        note(
            "flash_attn", "this model's attention does not do without padding; rows of a batch are padded to one length"
        )
    return chosen


def untuned_model(cfg: Config, source: Source, runtime: Runtime) -> nn.Module:
    """The model as it is, its adapters merged."""
    model = base_model(cfg, source, runtime, trainable=False)
    return merge(model, find_adapters(cfg.model))
