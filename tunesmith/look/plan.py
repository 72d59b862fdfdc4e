"""How a run's rows fall into its steps, asked of the trainer itself.  Knows options; knows no model."""

import os

from tunesmith.config.load import Loaded
from tunesmith.data import totals
from tunesmith.data.totals import Totals
from tunesmith.jobs.start import process_count
from tunesmith.train.inputs import Inputs
from tunesmith.train.timetable import division, timetable


def totals_of(loaded: Loaded, inputs: Inputs) -> Totals:
    """The totals of a run's data, in the batches and steps that it would be trained in on this machine."""
    cfg = loaded.config
    processes = int(os.environ.get("WORLD_SIZE") or max(process_count(loaded), 1))
    divided = division(cfg, processes)
    due = timetable(cfg.train, inputs.prepared.feed(divided).per_epoch, bool(inputs.prepared.evals))
    return totals.count(inputs.prepared, divided, steps=due.total)
