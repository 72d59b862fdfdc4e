"""What may not go together about asking a model."""

from collections.abc import Iterator

from tunesmith.config.rules.asked import Asked, Finding

OWN = ("task", "n_shot", "save_dir", "compare_base", "base_model", "task_lang")
"""Options that only `tunesmith eval` reads."""


def something_to_ask(asked: Asked) -> Iterator[Finding]:
    """A model is asked questions of tasks, rows of datasets, or both."""
    if asked.command != "eval":
        return
    data = asked.config.data
    if not (asked.config.evaluate.task or data.eval_dataset or data.dataset):
        text = "is missing: files of multiple-choice questions, or rows with eval_dataset"
        yield Finding("error", ("task", "eval_dataset"), text)
    if asked.config.evaluate.base_model and not asked.config.evaluate.compare_base:
        yield Finding("error", ("base_model", "compare_base"), "needs compare_base: true")
    if data.streaming:
        yield Finding("error", ("streaming",), "goes with `tunesmith train` alone; `eval` reads its rows beforehand")


def evaluate_elsewhere(asked: Asked) -> Iterator[Finding]:
    """Options of another command are probably meant to do something."""
    if asked.command != "eval":
        for name in OWN:
            if asked.wrote(name):
                yield Finding("note", (name,), "is read by `tunesmith eval` alone")
