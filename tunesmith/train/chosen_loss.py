"""The loss that the options name, as an objective, and what it compares with.  Knows options and models; the losses room knows
the formulas."""

from collections.abc import Callable

from peft import PeftModel

from tunesmith import catalog, log
from tunesmith.config.optim import OptimConfig
from tunesmith.config.schema import Config
from tunesmith.losses.tokens import TokenLoss, smoothed
from tunesmith.models.predict import Predictions, Predictor
from tunesmith.train.foretelling.memory import Chosen
from tunesmith.train.inputs import Inputs
from tunesmith.train.objectives import NextToken, Objective
from tunesmith.train.policy import asked, untuned_model
from tunesmith.train.runtime import Runtime

COMPARING = ("asft",)
"""Losses that ask what the model said before it was tuned."""


def chosen_loss(cfg: Config, inputs: Inputs, policy: Predictor, runtime: Runtime) -> tuple[Objective, Chosen | None]:
    """The objective of training, and what it needs beyond plain cross-entropy.  Evaluation is always by cross-entropy."""
    each = token_loss(cfg.optim)
    if each is None:
        return inputs.stage.objective(), None
    if cfg.optim.loss not in COMPARING:
        return NextToken(each), Chosen(anchored=False)
    before, weights = _before(cfg, inputs, policy, runtime)
    return NextToken(each, before), Chosen(anchored=True, weights=weights)


def token_loss(cfg: OptimConfig) -> TokenLoss | None:
    """What each trained token costs; None: plain cross-entropy."""
    if cfg.loss == "cross_entropy":
        return smoothed(cfg.label_smoothing_factor) if cfg.label_smoothing_factor else None
    found = catalog.find("loss", cfg.loss)
    alphas = {"eaft": cfg.eaft_alpha, "asft": cfg.asft_alpha}
    made: TokenLoss = found(alphas[cfg.loss]) if cfg.loss in alphas else found
    return made


def _before(cfg: Config, inputs: Inputs, policy: Predictor, runtime: Runtime) -> tuple[Callable[..., Predictions], int]:
    """What tells what the model said before it was tuned, and its own weights in bytes: the model without its adapter, or
    a second one whose weights stay."""
    if isinstance(policy.model, PeftModel):
        return policy.before_tuning, 0
    with log.muted():
        frozen = asked(
            cfg, untuned_model(cfg, inputs.source, inputs.tokenizer, runtime).requires_grad_(False).eval(), runtime
        )
    weights = sum(weight.nbytes for weight in frozen.parameters())
    return frozen.told, weights
