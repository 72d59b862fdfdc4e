"""Makes the optimizer that the options name.  Knows which arguments optimizers take; knows no particular model."""

import inspect
from collections.abc import Mapping, Set
from typing import Any

from torch import nn
from torch.optim import Optimizer

from tunesmith import catalog, log
from tunesmith.config.optim import OptimConfig
from tunesmith.log import OptionError
from tunesmith.optim import averaged, groups

WRITTEN_ELSEWHERE = {
    "lr": "learning_rate",
    "weight_decay": "weight_decay",
    "betas": "adam_beta1 and adam_beta2",
}
"""Arguments of optimizers that have an option of their own."""

OURS = ("self", "params")
"""Arguments that are no options."""

COUPLED = {"ASGD", "Adadelta", "Adagrad", "Adamax", "RMSprop", "SGD"}
"""Optimizers of torch that know weight decay only as an addition to the gradient."""


OWN_OPTIONS = {
    "badam": ("mode", "start_block", "switch_mode", "switch_interval", "update_ratio", "mask_mode", "verbose"),
}
"""Optimizer -> its arguments that are options of that name behind its own."""


def build(model: nn.Module, cfg: OptimConfig, *, seed: int = 0) -> Optimizer:
    """The optimizer over every trained weight of `model`, in the groups of `groups.build`.  `seed`: of what it draws.

    Raises MissingExtra when its package is not installed, OptionError for an unknown optimizer or argument, or a value it refuses.
    """
    catalog.require("optimizer", cfg.optim)
    cls = catalog.find("optimizer", cfg.optim)
    takes = {name: one for name, one in inspect.signature(cls.__init__).parameters.items() if name not in OURS}
    accepted = set(takes)
    arguments = {**_from_options(model, cfg, takes), **_checked(cfg, cls.__name__, accepted)}
    if "seed" in accepted:
        arguments["seed"] = seed
    param_groups = groups.build(model, cfg)
    if "weight_decay" not in accepted:
        _without_decay(param_groups, cfg, cls.__name__)
    elif cfg.weight_decay and cls.__name__ in COUPLED:
        log.note("weight_decay", f"{cls.__name__} adds it to the gradient (L2) instead of shrinking weights directly")
    try:
        made: Optimizer = cls(param_groups, lr=cfg.learning_rate, **arguments)
    except (TypeError, ValueError) as refusal:
        raise OptionError(f"optim: {cfg.optim} refuses its arguments: {refusal}") from refusal
    averaged.train(made)
    return made


def check(cfg: OptimConfig) -> None:
    """Raise what `build` raises of the optimizer's name, package and arguments, before there is a model."""
    catalog.require("optimizer", cfg.optim)
    cls = catalog.find("optimizer", cfg.optim)
    _checked(cfg, cls.__name__, inspect.signature(cls.__init__).parameters.keys() - {*OURS})


def _from_options(model: nn.Module, cfg: OptimConfig, takes: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """What our own options say to this optimizer."""
    name, flat = cfg.optim.lower(), dict(cfg)
    arguments: dict[str, Any] = {argument: flat[f"{name}_{argument}"] for argument in OWN_OPTIONS.get(name, ())}
    accepted = takes.keys()
    if "betas" in accepted:
        # Only Adam's family: eps means something else, and has another default, in Adagrad, Adadelta or Adafactor.
        slower = takes["betas"].default[2:]  # AdEMAMix has a third
        arguments["betas"] = (cfg.adam_beta1, cfg.adam_beta2, *slower)
        if "eps" in accepted:
            arguments["eps"] = cfg.adam_epsilon
    if "decoupled_weight_decay" in accepted:
        arguments["decoupled_weight_decay"] = True
    devices = {"cpu", "cuda"} if "betas" in accepted else {"cpu"}  # not every optimizer has such a step on a GPU
    if (
        "fused" in accepted
        and _fused_here(model, devices, of_adam="betas" in accepted)
        and not {"foreach", "differentiable"} & cfg.optim_args.keys()
    ):
        arguments["fused"] = True
    return arguments


def _fused_here(model: nn.Module, devices: set[str], *, of_adam: bool) -> bool:
    """Whether to take torch's one-kernel step: on the CPU it is several times as fast as a loop over weights, on a GPU it
    passes over weights and moments once and needs no memory besides, which a step by lists of tensors does.  Not SGD's of
    weights of 16 bits: its momentum has other bits each time."""
    trained = [p for p in model.parameters() if p.requires_grad]
    exact = of_adam or all(p.itemsize > 2 for p in trained)
    return exact and all(p.is_floating_point() and p.device.type in devices for p in trained)


def _checked(cfg: OptimConfig, optimizer: str, accepted: Set[str]) -> dict[str, Any]:
    """`optim_args`, with lists made tuples, once every name is one that the optimizer takes."""
    problems = []
    for name in cfg.optim_args:
        if name in WRITTEN_ELSEWHERE:
            problems.append(f"optim_args: {name} is written as the option {WRITTEN_ELSEWHERE[name]}")
        elif name == "eps" and "betas" in accepted:
            problems.append("optim_args: eps is written as the option adam_epsilon")
        elif name not in accepted:
            own = sorted(accepted - WRITTEN_ELSEWHERE.keys())
            hint = catalog.did_you_mean(name, own)
            problems.append(f"optim_args: {optimizer} has no argument '{name}'{hint}; it takes {', '.join(own)}")
    if problems:
        raise OptionError(*problems)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in cfg.optim_args.items()}


def _without_decay(param_groups: list[dict[str, Any]], cfg: OptimConfig, optimizer: str) -> None:
    if cfg.weight_decay:
        log.warn("weight_decay", f"{optimizer} has none; the option has no effect")
    for group in param_groups:
        del group["weight_decay"]
