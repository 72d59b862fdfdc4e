"""The model of a run, from its folder to the weights that are trained.  Knows the order; the models room knows how."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from tunesmith import catalog
from tunesmith.config.schema import Config
from tunesmith.data.sample import EVERYTHING, Layout
from tunesmith.files import sha256_of
from tunesmith.log import ModelError, note
from tunesmith.losses.liger import liger_cross_entropy
from tunesmith.losses.linear import linear_cross_entropy
from tunesmith.models import flex, float8, liger, positions, ragged
from tunesmith.models.dropout import has_dropout
from tunesmith.models.elementwise import add_rows_read, lighten
from tunesmith.models.isolation import require_isolation
from tunesmith.models.load import attention_for, load_model
from tunesmith.models.predict import Predictor, predictor
from tunesmith.models.tuning import loftq
from tunesmith.models.tuning.adapters import merge
from tunesmith.models.tuning.fused import fuse
from tunesmith.models.vocabulary import grow
from tunesmith.models.weights import fingerprint
from tunesmith.models.where import Source, find_adapters
from tunesmith.train.runtime import Runtime

WITHIN = {ragged.NAME: "attention within each row", flex.NAME: "FlexAttention within each row"}
"""Attention that rows without padding need -> what users are told of it."""


def base_model(cfg: Config, source: Source, runtime: Runtime, *, trainable: bool) -> PreTrainedModel:
    """The base model on this process's device, in the precision its weights need."""
    runtime.seed("scratch", cfg.train.seed, every_rank_its_own=False)
    return load_model(
        source,
        cfg.model,
        dtype=runtime.precision.load_dtype(cfg.tuning),
        device=runtime.device,
        trainable=trainable,
        attention=attention(cfg, source, runtime),
        longest=cfg.data.cutoff_len,
        scratch=cfg.model.train_from_scratch,
    )


def attention(cfg: Config, source: Source, runtime: Runtime) -> str:
    """Transformers' name of the attention that the run's models compute with."""
    kind = runtime.precision
    return attention_for(source, cfg.model, dtype=kind.autocast or kind.weights, device=runtime.device)


def tuned_model(
    cfg: Config, source: Source, tokenizer: Any, runtime: Runtime, *, isolated: bool, longest: int = 0
) -> tuple[nn.Module, str]:
    """The model, grown to its tokenizer where that has new tokens, with what `finetuning_type` trains made trainable, and a
    fingerprint of what it was made of; its random parts depend on the seed alone.
    `isolated`: rows hold samples that may not see each other.  Raises ModelError when the model lets them, and OptionError
    where `longest`, tokens of the longest text, is more than it can read."""
    model = base_model(cfg, source, runtime, trainable=True)
    if cfg.model.rope_scaling is None:
        positions.check_reach(model, longest)
    adapters = find_adapters(cfg.model)
    parts = [fingerprint(model.named_parameters()), *(_weights_of(adapter) for adapter in adapters)]
    if isolated:
        with runtime.autocast():
            require_isolation(model)
    rows = grow(model, tokenizer, source, cfg.model, seed=cfg.train.seed)
    made = tuned(cfg, model, runtime, adapters=adapters, rows=rows)
    if cfg.tuning.lora_init == "loftq" and not adapters:
        assert isinstance(made, PeftModel), "only LoRA has a start"
        loftq.start(made, source)
    return made, " ".join(parts)


def _weights_of(adapter: Source) -> str:
    """A hash of an adapter's weights."""
    return " ".join(sha256_of(file) for file in sorted(adapter.folder.glob("adapter_model.*")))


def tuned(
    cfg: Config, model: PreTrainedModel, runtime: Runtime, *, adapters: Sequence[Source], rows: Sequence[int] = ()
) -> nn.Module:
    """A base model with what `finetuning_type` trains, as `tuned_model` makes it of the run's own.  `rows`: ids of new
    tokens, which are trained too."""
    runtime.seed("weights", cfg.train.seed, every_rank_its_own=False)
    apply = catalog.find("tuning", cfg.tuning.finetuning_type)
    made: nn.Module = apply(model, cfg.tuning, precision=runtime.precision, adapters=adapters, rows=rows)
    if isinstance(made, PeftModel) and "fused_adapters" not in cfg.model.disable_speedups:
        fuse(made, in_place=cfg.model.gradient_checkpointing != "selective")
    if "lighter_layers" not in cfg.model.disable_speedups:
        lighten(made)
        if runtime.world_size == 1 and runtime.device.type == "cpu":
            add_rows_read(model)
    if liger.wanted(cfg.model.enable_liger_kernel, runtime.device) and (
        cfg.model.enable_liger_kernel is True or "lighter_layers" not in cfg.model.disable_speedups
    ):
        counts = (f"{number} {what}" for what, number in liger.take(made).items())
        note("enable_liger_kernel", f"Liger computes {', '.join(counts)}")
    return made


def asked(cfg: Config, model: PreTrainedModel | PeftModel, runtime: Runtime, *, isolated: bool = False) -> Predictor:
    """The model as the loop asks it: in the fastest of the ways that it passes a trial of.  `isolated` as in
    `tuned_model`; raises ModelError where only rows without padding would keep samples apart, and they do not go."""
    written, plain = cfg.model.flash_attn, model.config._attn_implementation
    needed = plain.startswith("flash_attention")
    wanted = written in ("auto", "flex") and "no_padding" not in cfg.model.disable_speedups
    random = _is_random(cfg, model)
    computed = runtime.precision.autocast or runtime.precision.weights
    even = "even_sizes" not in cfg.model.disable_speedups and not random
    with runtime.autocast():
        chosen = predictor(
            model,
            no_padding=needed or wanted,
            share="shared_prefix" not in cfg.model.disable_speedups and not random,
            fused_loss="fused_loss" not in cfg.model.disable_speedups,
            multiple_of=ragged.multiple(runtime.device, computed) if even else 1,
            within=flex.NAME if written == "flex" else ragged.NAME,
            loss=liger_cross_entropy if cfg.model.enable_liger_kernel is True else linear_cross_entropy,
        )
    if isolated and needed and not chosen.ragged:
        raise ModelError(f"packing: {plain} lets samples in one row see each other in this model; set packing: false")
    if runtime.precision.short:  # after the trial, whose ways it would set apart
        note("compute_type", f"{float8.take(model)} linear layers compute in fp8, the rest in bf16")
    now = WITHIN.get(model.config._attn_implementation, plain)
    lie = "without padding" if chosen.ragged else "rows padded to one length"
    once = ", what they begin with alike computed once" if chosen.shares else ""
    sizes = f", their tokens made multiples of {chosen.multiple_of}" if chosen.multiple_of > 1 else ""
    note("flash_attn", f"{written} means {now} here, {lie}{once}{sizes}")
    return chosen


def _is_random(cfg: Config, model: nn.Module) -> bool:
    """Whether the same tokens may be computed to something else in another row: with dropout or noise."""
    return cfg.optim.neftune_noise_alpha is not None or has_dropout(model)


def layout_of(policy: Predictor, *, trained: bool = False) -> Layout:
    """How samples lie in batches that it is asked about, or `trained` on."""
    few = trained and policy.few_sizes
    return Layout(policy.ragged, EVERYTHING if policy.shares and not few else 0, policy.multiple_of, few)


def untuned_model(cfg: Config, source: Source, tokenizer: Any, runtime: Runtime, *, longest: int = 0) -> nn.Module:
    """The model as it is, its adapters merged.  Raises OptionError where texts of `longest` tokens are more than it can read."""
    model = base_model(cfg, source, runtime, trainable=False)
    if cfg.model.rope_scaling is None:
        positions.check_reach(model, longest)
    grow(model, tokenizer, source, cfg.model, seed=cfg.train.seed)
    return merge(model, find_adapters(cfg.model))
