"""`fit: auto`: the options of a run changed until a step fits into the free memory.  Knows where a run keeps what was chosen; which
changes there are, changes.py knows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.config.load import Loaded
from tunesmith.config.schema import Config
from tunesmith.estimate.free import free_bytes
from tunesmith.estimate.memory import gib
from tunesmith.jobs import folder as runs
from tunesmith.log import note, warn
from tunesmith.train.foretelling.changes import changed
from tunesmith.train.foretelling.estimated import case_of, memory_of
from tunesmith.train.foretelling.fitting import cheapest
from tunesmith.train.foretelling.machine import here
from tunesmith.train.inputs import Inputs
from tunesmith.train.runtime import Runtime

FACT = "fit"
"""What was chosen, in `run.json`: a run that goes on takes the same."""


def fitted(loaded: Loaded, inputs: Inputs, runtime: Runtime) -> Loaded:
    """The options as they are, or, with `fit: auto`, with what makes a step fit; the same on every process."""
    if loaded.config.train.fit == "off":
        return loaded
    options: dict[str, Any] = runtime.from_main(_chosen(loaded.config, inputs, runtime) if runtime.is_main else None)
    if not options:
        return loaded
    origins = loaded.origins | dict.fromkeys(options, "fit: auto")
    return replace(loaded, config=changed(loaded.config, options), origins=origins)


def _chosen(cfg: Config, inputs: Inputs, runtime: Runtime) -> dict[str, Any]:
    earlier = runs.read_facts(Path(cfg.train.output_dir).expanduser()) if cfg.train.output_dir else {}
    if FACT in earlier and not cfg.train.overwrite_output_dir:
        found: dict[str, Any] = earlier[FACT]
        return found
    free = free_bytes(runtime.device)
    if free is None:
        return {}
    device = replace(here(cfg.model), memory=free, taken=0)
    case = case_of(cfg, inputs, device, ranks=runtime.world_size, precision=runtime.precision.name)
    if not case.is_known:
        note("fit", "there are no formulas for this model or these options; nothing was changed")
        return {}
    needed = memory_of(case)
    if device.fits(needed):
        return {}
    best = cheapest(case, same_result=True)
    if best is None:
        most, left = gib(needed.total), gib(free)
        warn("fit", f"a step takes {most}, {left} are free, and no change that learns the same makes it fit")
        return {}
    before, after = gib(needed.total), gib(best.memory.total)
    note("fit", f"{best.change.text}, since a step would take {before} and {gib(free)} are free; it takes {after} now")
    return best.change.options
