"""What the option `augment` may hold: which variations of prompts are made, and how often.  Knows values; makes none."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, ValidationError

from tunesmith.catalog import did_you_mean
from tunesmith.config.section import Fraction, Section

Copies = Annotated[int, Field(ge=1, le=100)]


class Augment(Section):
    copies: Copies = 1
    """Variations that are tried of each row; one that is like the row or another variation is not added."""

    spaces: Fraction = 0.5
    """How likely a variation has spaces doubled or added at the end."""

    case: Fraction = 0.5
    """How likely a variation begins with the other kind of letter, small or capital."""

    options: Fraction = 1.0
    """How likely the options of a multiple choice are shuffled, where the answer is an option's text."""

    drop_system: Fraction = 0.0
    """How likely a variation leaves out the row's system prompt."""

    paraphrase: list[list[str]] | str = []
    """Lists of phrases that say the same, or a file of them: JSON, or lines of phrases parted by tabs."""


def problems(written: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a mapping as written, in sentences."""
    known = list(Augment.model_fields)
    unknown = [str(name) for name in written if name not in known]
    for name in unknown:
        yield f"unknown key '{name}'{did_you_mean(name, known) or ';'} known are {', '.join(known)}"
    for name, value in () if unknown else written.items():
        try:
            Augment(**{name: value})
        except ValidationError:
            if name == "copies":
                yield f"copies: must be a whole number from 1 to 100, got {value!r}"
            elif name == "paraphrase":
                yield f"paraphrase: must be lists of phrases, or a file's name, got {value!r}"
            else:
                yield f"{name}: must be a number from 0 to 1, got {value!r}"
