"""`tunesmith train`, `plan` and `doctor`: check the options, take the folder, run.  Imports the trainer only once the options are right."""

import ctypes
import importlib
import os
import signal
import sys
from dataclasses import replace
from typing import NoReturn

from tunesmith.config.load import Loaded, load
from tunesmith.jobs import folder, importing, processes, watch
from tunesmith.log import is_speaker


def train_command(arguments: list[str]) -> int:
    """Run a training job; returns the process's exit code."""
    loaded = load(arguments, command="train")
    processes.check_place()
    if not (loaded.config.train.do_train or loaded.config.train.do_eval or loaded.config.train.do_predict):
        return _plan(loaded)
    if loaded.config.train.do_train and is_speaker():
        folder.check(loaded.config)
    _end_with_parent()
    count = process_count(loaded)
    if count > 1 and not processes.is_worker():
        return processes.launch(count, "train", arguments, loaded.config.train.ddp_timeout)
    _end_on_signal()
    processes.listen_again()
    _be_watched()
    # By name: jobs is a floor below the trainer, and what is missing must not cost the import of torch.
    with importing.quickly():
        importlib.import_module("tunesmith.train.early").check(loaded)
        trainer = importlib.import_module("tunesmith.train.run")
    code: int = trainer.run(loaded)
    if processes.is_worker():
        _leave(code)
    return code


def plan_command(arguments: list[str]) -> int:
    """Tell what a training job would do, and do nothing; returns the process's exit code."""
    return _plan(load(arguments, command="train"))


def _plan(loaded: Loaded) -> int:
    cfg = loaded.config
    if not (cfg.train.do_eval or cfg.train.do_predict):  # a plan is one of training, where nothing else is asked for
        loaded = replace(
            loaded, config=cfg.model_copy(update={"train": cfg.train.model_copy(update={"do_train": True})})
        )
    if loaded.config.train.do_train:
        folder.check(loaded.config)
    with importing.quickly():
        importlib.import_module("tunesmith.train.early").check(loaded)
        planner = importlib.import_module("tunesmith.look.plan_command")
    code: int = planner.plan(loaded)
    return code


def doctor_command(arguments: list[str]) -> int:
    """Try what training promises, in as many processes as training would use; returns the process's exit code."""
    loaded = load(arguments, command="doctor")
    processes.check_place()
    _end_with_parent()
    count = process_count(loaded)
    if count > 1 and not processes.is_worker():
        return processes.launch(count, "doctor", arguments, loaded.config.train.ddp_timeout)
    processes.listen_again()
    _be_watched()
    with importing.quickly():
        doctor = importlib.import_module("tunesmith.train.doctor")
    code: int = doctor.examine(loaded)
    if processes.is_worker():
        _leave(code)
    return code


def process_count(loaded: Loaded) -> int:
    """Processes that the run wants: as many as asked for, else one per GPU."""
    cfg = loaded.config
    if cfg.train.nproc_per_node is not None:
        return cfg.train.nproc_per_node
    return processes.gpus() if cfg.model.device != "cpu" else 1


def _leave(code: int) -> NoReturn:
    """End this worker at once.  Taking the process group down in good order can wait for ever: its threads wait for the
    interpreter, which waits for them."""
    watch.left(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _be_watched() -> None:
    """Report to the launcher, where it is ours; under another the trainer finds a hub."""
    if (address := os.environ.get(watch.VARIABLE)) and processes.is_worker():
        watch.join(address, int(os.environ["RANK"]))


def _end_on_signal() -> None:
    """Until the trainer listens, Ctrl-C and SIGTERM end the process at once and without a traceback: nothing was written."""
    for signum in processes.STOPPING:
        signal.signal(signum, lambda signum, _: os._exit(128 + signum))


def _end_with_parent() -> None:
    """Have the system end this worker when the launcher is gone, so that a killed launcher leaves nothing behind."""
    if "TUNESMITH_PARENT" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
