"""What a command can't start without, and names that lead nowhere."""

import os
from collections.abc import Iterator

from tunesmith import catalog
from tunesmith.config.rules.asked import Asked, Finding
from tunesmith.config.rules.built import NOT_BUILT, REFUSED

NEEDS = {
    "train": ("model_name_or_path", "dataset"),
    "chat": ("model_name_or_path",),
    "inspect": ("model_name_or_path", "dataset"),
    "lint": ("dataset",),
    "estimate": ("model_name_or_path", "dataset"),
    "export": ("model_name_or_path", "export_dir"),
    "eval": ("model_name_or_path",),
}
"""Command -> options it can't do without."""

EXAMPLES = {
    "model_name_or_path": "a folder or a hub name",
    "dataset": "names of dataset_info.json, or files",
    "export_dir": "a new folder for the merged model",
}


def needed(asked: Asked) -> Iterator[Finding]:
    """Without a model or data there is nothing to start."""
    for name in NEEDS.get(asked.command, ()):
        evaluates_only = name == "dataset" and not asked.config.train.do_train and asked.config.data.eval_dataset
        has_adapter = (
            name == "model_name_or_path"
            and asked.command in ("chat", "eval")
            and asked.config.model.adapter_name_or_path
        )
        if not asked.flat[name] and not evaluates_only and not has_adapter:
            yield Finding("error", (name,), f"is missing: {EXAMPLES[name]}")


def names_of_the_catalog(asked: Asked) -> Iterator[Finding]:
    """Names are checked before anything is loaded, so a typing error costs no minutes."""
    for kind, name, value in (
        ("optimizer", "optim", asked.config.optim.optim),
        ("schedule", "lr_scheduler_type", asked.config.optim.lr_scheduler_type),
        ("loss", "loss", asked.config.optim.loss),
    ):
        if value not in {*catalog.names(kind), *NOT_BUILT.get(name, ()), *REFUSED.get(name, ())}:
            yield Finding("error", (name,), catalog.unknown(kind, value))


def template_name(asked: Asked) -> Iterator[Finding]:
    """`auto`, `jinja:PATH`, `custom` with its parts, the parts themselves, or a name of the catalog."""
    name, args = asked.config.data.template, asked.config.data.template_args
    if not isinstance(name, str):
        for problem in catalog.problems_of_template({**name, **args}):
            yield Finding("error", ("template",), problem)
    elif name.startswith("jinja:"):
        if not os.path.isfile(os.path.expanduser(name.removeprefix("jinja:"))):
            yield Finding("error", ("template",), f"there is no file '{name.removeprefix('jinja:')}'")
    elif name == "custom":
        if not args:
            yield Finding("error", ("template", "template_args"), "custom needs template_args")
    elif name != "auto" and name not in catalog.names("template"):
        yield Finding("error", ("template",), catalog.unknown("template", name))


def trackers(asked: Asked) -> Iterator[Finding]:
    """Trackers are known by name; where they send their data is theirs to know."""
    for name in asked.config.train.report_to:
        if "://" in name or name.startswith(("www.", "localhost")):
            yield Finding(
                "error", ("report_to",), f"takes trackers' names, not the address '{name}'; {WHERE_ADDRESSES_GO}"
            )
        elif name != "none" and name not in catalog.names("tracker"):
            known = ["none", *catalog.names("tracker")]
            guess = catalog.did_you_mean(name, known) or ";"
            yield Finding("error", ("report_to",), f"unknown tracker '{name}'{guess} allowed: {', '.join(known)}")
    if "none" in asked.config.train.report_to and len(asked.config.train.report_to) > 1:
        yield Finding("error", ("report_to",), "none can't stand beside other trackers")


WHERE_ADDRESSES_GO = "set MLFLOW_TRACKING_URI or WANDB_BASE_URL in the environment and write mlflow or wandb"
