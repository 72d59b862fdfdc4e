"""Words that a command takes beside the options of the config, such as `--row 7`.  Data and its reader; knows no command's
inside."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tunesmith import catalog
from tunesmith.log import OptionError


@dataclass(frozen=True, slots=True)
class OwnWord:
    """`--name value`.  `value`: what stands after it, in help; '' for a switch."""

    name: str
    value: str
    help: str

    @property
    def shown(self) -> str:
        """As a user writes it."""
        return f"--{self.name} {self.value}".rstrip()


OWN_WORDS: dict[str, tuple[OwnWord, ...]] = {
    "inspect": (
        OwnWord("row", "N,N", "The rows to show, by their number in the data; `NAME:N` for row N of a dataset or file."),
        OwnWord("ids", "", "Write each token's id behind it."),
        OwnWord("json", "", "Print rows and totals as one JSON object."),
        OwnWord("html", "FILE", "Write rows and totals as one page that needs nothing else."),
        OwnWord("dump", "FILE", "Write `input_ids` and `labels` of every row to train on, a JSON object to a line."),
        OwnWord("fail-if", "LIMITS", "End with code 3 when a total passes a limit: `trained_fraction<0.05,dropped>1%`."),
        OwnWord("conversations", "FILE", "Write the conversations of a JSON file in the template; no data is read."),
        OwnWord("spans", "", "With --conversations: print JSON, `{case: [[text, learned], ...]}`."),
    ),
    "estimate": (
        OwnWord("devices", "NAMES", "Devices to estimate for, `a100-80,4090`, or `all`. Default: this machine's."),
        OwnWord("compare", "METHODS", "A table of methods against devices: `full,lora,qlora`; `full+zero3` shares among devices."),
        OwnWord("calibrate", "", "Train a few steps on this machine first, and go by what they reached; keeps nothing but the rate."),
        OwnWord("json", "", "Print the estimates as JSON."),
    ),
    "lint": (
        OwnWord("json", "", "Print the findings as one JSON object, with all their rows."),
        OwnWord("fix", "FILE", "Write the rows with what can be mended to a new JSON Lines file."),
    ),
}  # fmt: skip
"""Command -> its own words, in the order of its help."""


def take(command: str, arguments: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """A command's own words with their values ('' for a switch), and the other words.

    Raises OptionError for a value that is missing or too many, a word given twice, or one that was probably meant."""
    known = {word.name: word for word in OWN_WORDS[command]}
    taken: dict[str, str] = {}
    others: list[str] = []
    rest = iter(arguments)
    for text in rest:
        name, equals, value = text.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        if not text.startswith("--") or name not in known:
            others.append(_other(text, name, known))
            continue
        if name in taken:
            raise OptionError(f"--{name}: given twice")
        taken[name] = _value(known[name], value if equals else None, rest)
    return taken, others


def _value(word: OwnWord, written: str | None, rest: Iterator[str]) -> str:
    if not word.value:
        if written is not None:
            raise OptionError(f"--{word.name}: takes no value, got '{written}'")
        return ""
    value = next(rest, "") if written is None else written
    if not value or (written is None and value.startswith("--")):
        raise OptionError(f"--{word.name}: needs a value: {word.shown}")
    return value


def _other(text: str, name: str, known: Iterable[str]) -> str:
    """A word that is none of the command's own.  Raises OptionError when only one of those can have been meant."""
    from tunesmith.config.words import is_known

    if text.startswith("--") and name and not is_known(name.replace("-", "_").removeprefix("no_")):
        meant = catalog.nearest(name, known)
        if meant is not None and catalog.nearest(name, [*known, *_option_names()]) == meant:
            raise OptionError(f"unknown option '--{name}'; did you mean '--{meant}'?")
    return text


def _option_names() -> list[str]:
    from tunesmith.config.words import known_names

    return [each.replace("_", "-") for each in known_names()]
