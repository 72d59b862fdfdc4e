"""How a run's rows fall into its steps, asked of the trainer itself.  Knows options; knows no model."""

import os

from tunesmith.config.load import Loaded
from tunesmith.data.batching.division import Division
from tunesmith.data.telling import totals
from tunesmith.data.telling.totals import Totals
from tunesmith.jobs.start import process_count
from tunesmith.train.inputs import Inputs
from tunesmith.train.timetable import Timetable, division, timetable


def totals_of(loaded: Loaded, inputs: Inputs) -> Totals:
    """The totals of a run's data, in the batches and steps that it would be trained in on this machine."""
    return totals.count(inputs.prepared, _divided(loaded), steps=due_in(loaded, inputs).total)


def due_in(loaded: Loaded, inputs: Inputs) -> Timetable:
    """When what would be due in the run."""
    per_epoch = inputs.prepared.feed(_divided(loaded)).per_epoch
    return timetable(loaded.config.train, per_epoch, bool(inputs.prepared.evals))


def _divided(loaded: Loaded) -> Division:
    return division(loaded.config, processes_of(loaded))


def processes_of(loaded: Loaded) -> int:
    """Processes that the run would have on this machine."""
    return int(os.environ.get("WORLD_SIZE") or max(process_count(loaded), 1))
