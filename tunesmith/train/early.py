"""What can be refused before torch is imported: a model that is not there, data that nobody knows, a missing tracker."""

from tunesmith import catalog, log
from tunesmith.config.load import Loaded
from tunesmith.data.reading.sources import find_datasets
from tunesmith.models import adapter_files, quantizers
from tunesmith.models.complete import check as check_files
from tunesmith.models.where import find, find_adapters
from tunesmith.train.judging import scores
from tunesmith.train.judging.best import best_of
from tunesmith.train.telling import trackers


def check(loaded: Loaded) -> None:
    """Look for everything the options name.  Raises the TunesmithError of the first thing that is missing.

    A model on a hub is fetched by this, which is the same work as later.
    """
    cfg = loaded.config
    trackers.check(cfg.train.report_to)
    catalog.require("optimizer", cfg.optim.optim)
    if {"bleu", "rouge"} & {*cfg.train.metrics}:
        scores.require("metrics")
    quantizers.require(cfg.model)
    check_files(find(cfg.model), scratch=cfg.model.train_from_scratch)
    for adapter in find_adapters(cfg.model):
        adapter_files.check(adapter.folder)
    folders = [file.parent for file in loaded.files]
    with log.muted():
        trained = find_datasets(cfg.data.dataset, cfg.data.dataset_dir, folders, streaming=cfg.data.streaming)
        evaluated = find_datasets(cfg.data.eval_dataset, cfg.data.dataset_dir, folders, option="eval_dataset")
        if cfg.train.do_train:
            sets = [each.name for each in (trained if cfg.data.val_size else evaluated)]
            best_of(cfg.train, sets if cfg.data.eval_on_each_dataset else ["eval"])
