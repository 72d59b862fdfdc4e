"""Whether a run is long enough to earn back the time that compiling takes.  Knows a run's plan; measures nothing, since the
same run must decide the same way again."""

from tunesmith import compiled
from tunesmith.config.model import ModelConfig
from tunesmith.data.telling.report import Report
from tunesmith.log import note
from tunesmith.models import float8
from tunesmith.models.elementwise import elements
from tunesmith.models.predict import Predictor
from tunesmith.train.runtime import Runtime


def settle(
    cfg: ModelConfig,
    policy: Predictor,
    report: Report,
    passes: float | None,
    runtime: Runtime,
    *,
    went_on: bool | None = None,
) -> bool:
    """Compile what can be, as `torch_compile` says, and say so; returns whether it is done.

    `passes`: passes over the rows in the whole run, None where nobody knows them.  `went_on`: what was decided at the
    beginning of a run that goes on, which holds however long that has become.
    """
    compiled.switch_off()
    if cfg.torch_compile != "auto":
        wanted = cfg.torch_compile
    elif went_on is not None:
        wanted = went_on
    else:
        seconds = 0.0 if passes is None else earned(cfg, policy, report, passes, runtime)
        cost = compiled.COST_SECONDS[runtime.device.type]
        wanted = seconds > cost
        if wanted:
            note("torch_compile", f"compiling takes about {cost:.0f} s and saves about {seconds:,.0f} s of this run")
    return wanted and compiled.switch_on(runtime.device)


def earned(cfg: ModelConfig, policy: Predictor, report: Report, passes: float, runtime: Runtime) -> float:
    """Seconds that each process saves in `passes` passes over the rows."""
    width = elements(policy) + float8.elements(policy)
    vocabulary = 0 if "fused_loss" in cfg.disable_speedups else policy.model.config.get_text_config().vocab_size
    each = report.tokens * width + report.trained_tokens * vocabulary
    return compiled.earns(each * passes / runtime.world_size, runtime.device)
