"""A model's modules without its weights, and what options name of them.  Knows architectures; reads no weights."""

import torch
from transformers import PreTrainedModel

from tunesmith.config.model import ModelConfig
from tunesmith.config.tuning import TuningConfig
from tunesmith.log import ModelError
from tunesmith.models import architecture, complete, dropout, plausible, positions
from tunesmith.models.precision import BY_NAME
from tunesmith.models.tuning import freeze, targets
from tunesmith.models.weights import quiet, reason
from tunesmith.models.where import Source


def skeleton(source: Source, cfg: ModelConfig) -> PreTrainedModel:
    """The model on torch's `meta` device: every module, and of each weight only its shape."""
    config, model_class = architecture.read(source, cfg)
    plausible.check(config, complete.check(source, scratch=cfg.train_from_scratch), source.folder / "config.json")
    if cfg.dropout_rate is not None:
        dropout.announce(config, cfg.dropout_rate)
    try:
        with torch.device("meta"), quiet():
            return model_class(config)
    except Exception as failure:  # a config that makes no sense fails in as many ways as there are architectures
        raise ModelError(f"{source.folder}: the model cannot be built: {reason(failure)}") from failure


def check_changes(source: Source, cfg: ModelConfig, longest: int) -> None:
    """Tell what options change in the model beside its weights: `rope_scaling` for rows of `longest` tokens, and `dropout_rate`.
    Raises OptionError for what the model does not have."""
    if cfg.rope_scaling is not None:
        config, _ = architecture.read(source, cfg)
        positions.stretch(config, cfg.rope_scaling, longest, tell=True)
    if cfg.dropout_rate is not None:
        dropout.set_all(skeleton(source, cfg), cfg.dropout_rate)


def check_targets(source: Source, cfg: ModelConfig, tuning: TuningConfig) -> None:
    """Raise OptionError for names of modules that the model does not have."""
    if tuning.finetuning_type == "freeze":
        freeze.apply(skeleton(source, cfg), tuning, precision=BY_NAME["fp32"])
    elif tuning.finetuning_type != "full" and not (cfg.adapter_name_or_path and not tuning.create_new_adapter):
        model = skeleton(source, cfg)
        targets.resolve(model, tuning.lora_target)
        targets.check_names(model, tuning.additional_target, "additional_target")
