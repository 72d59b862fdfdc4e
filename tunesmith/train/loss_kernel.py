"""Which function computes the loss from hidden states in a run: the one that is named, the one that the run began with, or on a
GPU the fastest in a trial.  Knows options and a run's shapes."""

from collections.abc import Callable
from dataclasses import asdict

import torch

from tunesmith.config.schema import Config
from tunesmith.data.sample import Batch
from tunesmith.log import OptionError, note
from tunesmith.losses import kernels
from tunesmith.losses.kernels import KERNELS, OURS, Choice, Timed
from tunesmith.models import liger
from tunesmith.models.predict import Predictor
from tunesmith.train.runtime import Runtime

MOST_PLACES = 1 << 14
"""Trained tokens that a trial is made with at the most."""


def settle(
    cfg: Config,
    policy: Predictor,
    largest_batch: Callable[[], Batch],
    runtime: Runtime,
    *,
    went_on: str | None = None,
    timed: Timed | None = None,
) -> Choice:
    """Have the policy compute its loss by what is chosen, and say so where it was chosen by a trial.
    `largest_batch`: makes the largest micro-batch; `went_on`: what a run that goes on began with.  `timed`: a clock, by default the GPU's; without one nothing is
    tried.  Raises OptionError and MissingExtra for what cannot run here."""
    written: str = cfg.model.loss_kernel
    if written == "auto" and cfg.model.enable_liger_kernel is True:
        written = "liger"
    if went_on is not None and written == "auto":
        written = went_on or OURS
    if timed is None and runtime.device.type == "cuda":
        timed = kernels.clock(runtime.device)
    plain = cfg.optim.loss == "cross_entropy" and not cfg.optim.label_smoothing_factor
    choice = Choice(OURS if written == "auto" else written)
    if written == "auto" and timed and plain and policy.head is not None and not cfg.train.deterministic:
        found = _tried(policy, largest_batch().loss_tokens, runtime, timed) if runtime.is_main else choice
        choice = Choice(**runtime.from_main(asdict(found)))
        _tell(choice)
    _require(choice.name, runtime)
    policy.loss = KERNELS[choice.name]
    return choice


def _tried(policy: Predictor, tokens: int, runtime: Runtime, timed: Timed) -> Choice:
    head = policy.head
    assert head is not None
    linear, device = head.linear, runtime.device
    places = max(1, min(tokens, MOST_PLACES))
    random = torch.Generator(device).manual_seed(0)
    dtype = runtime.precision.autocast or linear.weight.dtype
    hidden = torch.randn(places, linear.in_features, generator=random, device=device).to(dtype)
    targets = torch.randint(linear.out_features, (places,), generator=random, device=device)
    names = kernels.there(device.type)
    with runtime.autocast():
        return kernels.choose(
            names,
            hidden,
            linear.weight,
            targets,
            bias=None if linear.bias is None else linear.bias.detach(),
            scale=head.scale,
            softcap=head.softcap,
            timed=timed,
        )


def _tell(choice: Choice) -> None:
    told = [f"{name} {taken:.2f} ms" for name, taken in sorted(choice.milliseconds.items(), key=lambda item: item[1])]
    told += [f"{name}: {reason}" for name, reason in choice.refused.items()]
    note("loss_kernel", f"{choice.name} computes the loss ({', '.join(told)})")


def _require(name: str, runtime: Runtime) -> None:
    if name == "liger":
        liger.wanted(True, runtime.device, "loss_kernel")
    elif name not in kernels.there(runtime.device.type):
        raise OptionError(f"loss_kernel: {name} has come with torch 2.13, and this is {torch.__version__}")
