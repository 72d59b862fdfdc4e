"""What may not go together about variations of prompts."""

from collections.abc import Iterator

from tunesmith.config.augment import problems
from tunesmith.config.rules.asked import Asked, Finding


def augmentation(asked: Asked) -> Iterator[Finding]:
    """Which variations are made, and that they are wanted."""
    data = asked.config.data
    for problem in problems(data.augment):
        yield Finding("error", ("augment",), problem)
    if asked.wrote("augment") and not data.data_augmentation:
        yield Finding("warning", ("augment", "data_augmentation"), "has no effect without data_augmentation")
    if data.data_augmentation and asked.config.train.stage != "sft" and asked.command in ("train", "inspect"):
        text = f"varies the prompts of conversations, as in the stage sft, not in {asked.config.train.stage}"
        yield Finding("error", ("data_augmentation", "stage"), text)
