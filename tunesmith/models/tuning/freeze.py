"""Freeze tuning: some layers are trained, the rest is left as it is.  Knows nothing of optimizers."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from tunesmith import catalog, log
from tunesmith.config.tuning import TuningConfig
from tunesmith.log import OptionError
from tunesmith.models import structure
from tunesmith.models.precision import Precision, settle
from tunesmith.models.tuning import adapters as adapter_files
from tunesmith.models.where import Source


def apply(
    model: PreTrainedModel,
    cfg: TuningConfig,
    *,
    precision: Precision,
    adapters: Sequence[Source] = (),
    rows: Sequence[int] = (),
) -> PreTrainedModel:
    """The model, adapters merged into it, with only the chosen layers and modules trained; a warning when `rows` of new
    tokens are not among them.

    Raises OptionError when there are fewer layers than asked for, or a name matches nothing.
    """
    model = adapter_files.merge(model, adapters)
    model.requires_grad_(False)
    prefix, layers = structure.layers(model)
    chosen = _chosen_layers(layers, cfg.freeze_trainable_layers)
    if not chosen and not cfg.freeze_extra_modules:
        raise OptionError("freeze_trainable_layers: 0 layers and no freeze_extra_modules: nothing would be trained")
    if chosen:
        _train_within(chosen, cfg.freeze_trainable_modules)
    outside = [(name, module) for name, module in model.named_modules() if not f"{name}.".startswith(f"{prefix}.")]
    _train_named(outside, cfg.freeze_extra_modules, "freeze_extra_modules")
    embeddings = model.get_input_embeddings()
    if rows and isinstance(embeddings, nn.Module) and not any(one.requires_grad for one in embeddings.parameters()):
        log.warn(
            "add_tokens", "freeze leaves the rows of new tokens as they begin; freeze_extra_modules trains embeddings"
        )
    settle(model, precision)
    return model


def _chosen_layers(layers: nn.ModuleList, count: int) -> list[nn.Module]:
    if abs(count) > len(layers):
        raise OptionError(f"freeze_trainable_layers: {abs(count)} layers are asked for, the model has {len(layers)}")
    if count < 0:
        return list(layers[:-count])
    return list(layers[len(layers) - count :])


def _train_within(layers: Sequence[nn.Module], names: Sequence[str]) -> None:
    if "all" in names:
        for layer in layers:
            layer.requires_grad_(True)
        return
    within = [pair for layer in layers for pair in layer.named_modules()]
    _train_named(within, names, "freeze_trainable_modules")


def _train_named(modules: Sequence[tuple[str, nn.Module]], names: Sequence[str], option: str) -> None:
    """Train every module whose name is, or ends in, one of `names`."""
    for wanted in names:
        found = [module for name, module in modules if wanted in structure.tails(name)]
        if not found:
            known = structure.endings(
                name for name, module in modules if name and any(True for _ in module.parameters())
            )
            hint = catalog.did_you_mean(wanted, known)
            raise OptionError(f"{option}: no module is named '{wanted}'{hint}; there are {', '.join(known)}")
        for module in found:
            module.requires_grad_(True)
