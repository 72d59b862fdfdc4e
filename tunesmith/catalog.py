"""The index page: every name a user may write -> "module:attribute", imported on first use.  Imports nothing heavy.

Adding a thing is one file, one line here, one test.
"""

from collections.abc import Iterable
from typing import Any

from tunesmith.log import OptionError

KINDS: dict[str, tuple[str, str]] = {
    "stage": ("stage", "stage"),
    "tuning": ("finetuning_type", "method"),
    "optimizer": ("optim", "optimizer"),
    "schedule": ("lr_scheduler_type", "schedule"),
    "template": ("template", "template"),
    "format": ("formatting", "data format"),
    "tracker": ("report_to", "tracker"),
}
"""Kind -> the option in which its names are written, and what one of them is called."""

STAGES = {
    "pt": "tunesmith.train.stages:PT",
    "sft": "tunesmith.train.stages:SFT",
}

TUNING = {
    "full": "tunesmith.models.tuning.full:apply",
    "freeze": "tunesmith.models.tuning.freeze:apply",
    "lora": "tunesmith.models.tuning.lora:apply",
}

OPTIMIZERS = {
    "adamw_torch": "torch.optim:AdamW",
    "adamw_torch_fused": "torch.optim:AdamW",
    "adamw": "torch.optim:AdamW",
    "adam": "torch.optim:Adam",
    "adamax": "torch.optim:Adamax",
    "nadam": "torch.optim:NAdam",
    "radam": "torch.optim:RAdam",
    "adafactor": "torch.optim:Adafactor",
    "adagrad": "torch.optim:Adagrad",
    "adadelta": "torch.optim:Adadelta",
    "rmsprop": "torch.optim:RMSprop",
    "rprop": "torch.optim:Rprop",
    "asgd": "torch.optim:ASGD",
    "sgd": "torch.optim:SGD",
}
"""Of torch's, three are left out: LBFGS (it calls the loss again within a step), SparseAdam (sparse gradients only),
Muon (matrices only, so it needs a second optimizer beside it)."""

SCHEDULES = dict.fromkeys(
    (
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
        "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
    ),
    "tunesmith.optim.schedules:build",
)  # fmt: skip

FORMATS = {
    "alpaca": "tunesmith.data.formats:alpaca",
    "sharegpt": "tunesmith.data.formats:sharegpt",
    "openai": "tunesmith.data.formats:openai",
    "text": "tunesmith.data.formats:text",
}

TRACKERS = {
    "tensorboard": "accelerate.tracking:TensorBoardTracker",
    "wandb": "accelerate.tracking:WandBTracker",
    "mlflow": "accelerate.tracking:MLflowTracker",
    "swanlab": "accelerate.tracking:SwanLabTracker",
    "trackio": "accelerate.tracking:TrackioTracker",
}

TEMPLATES: dict[str, str] = {}

TABLES: dict[str, dict[str, str]] = {
    "stage": STAGES,
    "tuning": TUNING,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "template": TEMPLATES,
    "format": FORMATS,
    "tracker": TRACKERS,
}

LONGEST_LIST = 40
"""Names listed in an error; of more, only the nearest are."""


def names(kind: str) -> list[str]:
    """Every name of this kind, in the order of its table."""
    return list(TABLES[kind])


def find(kind: str, name: str) -> Any:
    """What `name` stands for, imported now.  OptionError with the names there are when it is none of them."""
    import pkgutil

    return pkgutil.resolve_name(TABLES[kind][check(kind, name)])


def check(kind: str, name: str) -> str:
    """`name` as its table spells it (case does not matter), without importing anything.  OptionError when unknown."""
    spelled = name if name in TABLES[kind] else name.lower()
    if spelled not in TABLES[kind]:
        raise OptionError(f"{KINDS[kind][0]}: {unknown(kind, name)}")
    return spelled


def unknown(kind: str, name: str) -> str:
    """The sentence that says that there is no such name, what there is, and what is nearest."""
    option, word = KINDS[kind]
    known = names(kind)
    listed = ", ".join(known) if len(known) <= LONGEST_LIST else f"`tunesmith explain {option}` lists all {len(known)}"
    return f"unknown {word} '{name}'{did_you_mean(name, known)}; allowed: {listed}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that `name` was probably meant to be, or None.  A unique beginning counts, so does a swapped order."""
    import difflib

    known = list(known)
    plain = {one.lower().replace("-", "_"): one for one in known}
    wanted = name.lower().replace("-", "_")
    if close := difflib.get_close_matches(wanted, plain, n=1, cutoff=0.75):
        return plain[close[0]]
    if begun := [one for one in plain if len(wanted) >= 3 and one.startswith(wanted)]:
        return plain[min(begun, key=len)]
    parts = sorted(wanted.split("_"))
    if same := [one for one in plain if sorted(one.split("_")) == parts]:
        return plain[same[0]]
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str], form: str = "'{}'") -> str:
    """`; did you mean 'NAME'?`, or nothing when no known name is near."""
    guess = nearest(name, known)
    return f"; did you mean {form.format(guess)}?" if guess else ""
