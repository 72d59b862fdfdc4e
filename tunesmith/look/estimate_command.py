"""`tunesmith estimate`: what a run will take of memory, time and money, before it starts.  Knows words and order; loads no
weights but with `--calibrate`."""

import json
import time

from tunesmith.config import own_words
from tunesmith.config.load import load
from tunesmith.jobs.importing import quickly
from tunesmith.log import OptionError, say

METHODS = ("full", "freeze", "lora", "qlora")
"""What `--compare` knows."""


def estimate_command(arguments: list[str]) -> int:
    """Print the estimate; returns the exit code."""
    own, words = own_words.take("estimate", arguments)
    loaded = load(words, command="estimate")
    methods = _methods(own.get("compare"))
    from tunesmith.estimate import devices

    wanted = devices.all_named(own["devices"]) if "devices" in own else []
    from tunesmith.estimate.words import duration

    with quickly():
        from tunesmith.look import estimate_lines as lines
        from tunesmith.look.plan import processes_of
        from tunesmith.train.foretelling.machine import here
        from tunesmith.train.inputs import read_inputs

    machine = here(loaded.config.model)
    if "calibrate" in own and (elsewhere := [each.name for each in wanted if each.name != machine.name]):
        raise OptionError(
            f"--calibrate: steps can be made on this machine ({machine.name}), not on {', '.join(elsewhere)}"
        )
    began = time.perf_counter()
    inputs = read_inputs(loaded, keep=False)
    seconds = time.perf_counter() - began
    ranks = processes_of(loaded)
    measured = None
    if "calibrate" in own:
        from tunesmith.train.foretelling.calibrate import calibrate

        measured = calibrate(loaded.config, inputs)
        lines.remembered(loaded.config, inputs, machine, measured)
    found = [lines.estimated(loaded.config, inputs, each, ranks, seconds, measured) for each in wanted or [machine]]
    if "json" in own:
        say(json.dumps([each.as_dict() for each in found], ensure_ascii=False))
        return 0
    if methods:
        say(f"reading and preparing took {duration(seconds)}")
        if measured is not None:
            say(lines.told(measured))
        for line in lines.table(loaded.config, inputs, methods, wanted or [machine], ranks):
            say(line)
        return 0
    for line in [*lines.about_run(found[0], inputs), *(line for each in found for line in ["", *each.lines()])]:
        say(line)
    return 0


def _methods(written: str | None) -> list[str]:
    """The methods of `--compare`.  Raises OptionError for one that is none."""
    names = [each.strip() for each in (written or "").split(",") if each.strip()]
    for name in names:
        from tunesmith import catalog

        method, _, way = name.partition("+")
        if method not in METHODS:
            guess = catalog.did_you_mean(method, METHODS) or ";"
            raise OptionError(f"--compare: unknown method '{method}'{guess} known: {', '.join(METHODS)}")
        if way:
            from tunesmith.estimate.sharding import WAYS

            if way not in WAYS:
                guess = catalog.did_you_mean(way, WAYS) or ";"
                raise OptionError(f"--compare: unknown way to share '{way}'{guess} known: {', '.join(WAYS)}")
    return names
