"""What can be refused before torch is imported: a model that is not there, data that nobody knows, a missing tracker."""

from tunesmith import log
from tunesmith.config.load import Loaded
from tunesmith.data.sources import find_datasets
from tunesmith.models.complete import check as check_files
from tunesmith.models.where import find, find_adapters
from tunesmith.train import trackers


def check(loaded: Loaded) -> None:
    """Look for everything the options name.  Raises the TunesmithError of the first thing that is missing.

    A model on a hub is fetched by this, which is the same work as later.
    """
    cfg = loaded.config
    trackers.check(cfg.train.report_to)
    check_files(find(cfg.model))
    find_adapters(cfg.model)
    folders = [file.parent for file in loaded.files]
    with log.muted():
        for names, streaming in ((cfg.data.dataset, cfg.data.streaming), (cfg.data.eval_dataset, False)):
            find_datasets(names, cfg.data.dataset_dir, folders, streaming=streaming)
