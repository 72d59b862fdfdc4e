"""How a run's rows fall into its steps, asked of the trainer itself.  Knows options; knows no model."""

import os

from tunesmith.config.load import Loaded
from tunesmith.data import totals
from tunesmith.data.totals import Batching, Totals
from tunesmith.jobs.start import process_count
from tunesmith.train.inputs import Inputs
from tunesmith.train.timetable import accumulation, timetable


def totals_of(loaded: Loaded, inputs: Inputs) -> Totals:
    """The totals of a run's data, in the batches and steps that it would be trained in on this machine."""
    cfg = loaded.config
    processes = int(os.environ.get("WORLD_SIZE") or max(process_count(loaded), 1))
    batching = Batching(
        batch_size=cfg.train.per_device_train_batch_size,
        accumulation=accumulation(cfg.train, processes),
        processes=processes,
        seed=cfg.train.seed if cfg.train.data_seed is None else cfg.train.data_seed,
        shuffle=not cfg.data.disable_shuffling,
    )
    per_epoch = batching.steps_per_epoch(inputs.prepared.train)
    due = timetable(cfg.train, per_epoch, bool(inputs.prepared.evals))
    return totals.count(inputs.prepared, batching, steps=due.total)
