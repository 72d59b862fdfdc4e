"""Which evaluation of a run was the best so far, and when going on is of no more use.  Knows names and numbers; knows no weight
and imports no torch."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith import files
from tunesmith.catalog import did_you_mean
from tunesmith.config.train import TrainConfig
from tunesmith.jobs import checkpoints
from tunesmith.log import OptionError, note, warn
from tunesmith.train.position import Position

RESULTS: dict[str, tuple[str, ...]] = {
    "loss": ("loss",),
    "ppl": ("perplexity",),
    "accuracy": ("accuracy",),
    "exact_match": ("exact_match",),
    "f1": ("f1",),
    "bleu": ("bleu-4",),
    "rouge": ("rouge-1", "rouge-2", "rouge-l"),
}
"""What `metrics` may name -> what results call it, behind `eval_`."""

LOWER_IS_BETTER = ("loss", "perplexity")


@dataclass(frozen=True, slots=True)
class Best:
    """What `save_best_model` and early stopping go by: the mean of the results `names`, which is one but for several sets."""

    metric: str
    names: tuple[str, ...]
    greater: bool
    patience: int | None
    """Evaluations without a better one after which a run ends; None: never."""
    keeps: bool
    """Whether the best checkpoint is kept and becomes the final model."""

    def note(self, here: Position, epoch: float) -> bool:
        """Note what was found at this step in the run's position; True when it is the best so far."""
        value = sum(here.evaluation[name] for name in self.names) / len(self.names)
        if not self._beats(value, here.best_value):
            here.unimproved += 1
            return False
        here.best_step, here.best_value, here.best_epoch, here.unimproved = here.step, value, epoch, 0
        here.best_evaluation = dict(here.evaluation)
        return True

    def _beats(self, value: float, best: float | None) -> bool:
        if not math.isfinite(value):
            return False
        return best is None or (value > best if self.greater else value < best)

    def is_given_up(self, here: Position) -> bool:
        """Whether as many evaluations in a row were no better as `early_stopping_steps` says."""
        return self.patience is not None and here.unimproved >= self.patience


def is_wanted(train: TrainConfig) -> bool:
    """Whether the run has any use for its best evaluation."""
    return train.save_best_model or train.early_stopping_steps is not None


def best_of(train: TrainConfig, sets: Sequence[str]) -> Best | None:
    """What the options ask for, `sets` being the evaluation sets' names; None when they ask for nothing.

    With several sets `eval_loss` means the mean of theirs.  Raises OptionError for a metric that is not evaluated.
    """
    if not is_wanted(train) or not sets:
        return None
    prefixes = [prefix(sets, each) for each in sets]
    asked = ["loss", *train.metrics, *(["bleu", "rouge"] if train.predict_with_generate else [])]
    measured = [result for name in dict.fromkeys(asked) for result in RESULTS[name]]
    written = train.metric_for_best_model.removeprefix("eval_")
    metric = {"ppl": "perplexity", "bleu": "bleu-4"}.get(written, written)
    of_one_set = [one for one in measured for each in prefixes if f"{each}_{one}" == f"eval_{metric}"]
    if metric in measured:
        names, result = [f"{each}_{metric}" for each in prefixes], metric
    elif of_one_set:
        names, result = [f"eval_{metric}"], of_one_set[0]
    else:
        raise OptionError(_not_measured(train, metric, [f"{each}_{one}" for each in prefixes for one in measured]))
    greater = result not in LOWER_IS_BETTER
    if train.greater_is_better is not None and train.greater_is_better != greater:
        better = "higher" if greater else "lower"
        warn(
            "greater_is_better",
            f"{result} is better when it is {better}; going by {train.greater_is_better} as written",
        )
        greater = train.greater_is_better
    return Best(f"eval_{metric}", tuple(names), greater, train.early_stopping_steps, train.save_best_model)


def prefix(sets: Sequence[str], name: str) -> str:
    """How the results of one of several evaluation sets begin."""
    return "eval" if len(sets) == 1 else f"eval_{name}"


def _not_measured(train: TrainConfig, metric: str, known: Sequence[str]) -> str:
    missing = next((name for name, results in RESULTS.items() if metric in results), None)
    if missing is not None:
        return f"metric_for_best_model: eval_{metric} is not evaluated; add {missing} to metrics"
    guess = did_you_mean(f"eval_{metric}", known) or ";"
    return f"metric_for_best_model: '{train.metric_for_best_model}' is not evaluated{guess} evaluated are {', '.join(known)}"


def bring_best(step: int, came_from: Path, folder: Path) -> bool:
    """Have the best checkpoint, of step `step`, of a run that goes on from the checkpoint `came_from` in `folder` too; False
    where it can't be had, so that what is best counts from there on."""
    name = f"checkpoint-{step}"
    if (folder / name).is_dir():
        return True
    beside = came_from.parent / name
    if checkpoints.damage(beside) is not None:
        warn("save_best_model", f"{beside} was the best so far and is not whole any more; the best from here on counts")
        return False
    made = files.folder_beside(folder / name)
    shutil.copytree(beside, made, dirs_exist_ok=True)
    files.publish_folder(made, folder / name)
    note("save_best_model", f"{beside} is the best so far and was copied into {folder}")
    return True
