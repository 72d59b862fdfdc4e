"""Which tokens are to be added to a vocabulary, and what each means.  Knows options and tokenizers; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tunesmith import log
from tunesmith.config.model import ModelConfig
from tunesmith.log import OptionError
from tunesmith.models.complete import read_json
from tunesmith.models.where import Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SHOWN = 5
"""Tokens named in a message."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as options ask for it.  `meaning`: a text whose tokens' mean it begins as."""

    text: str
    special: bool
    meaning: str


def asked_for(cfg: ModelConfig) -> list[NewToken]:
    """The tokens that options name, each once.  Raises OptionError for a file of descriptions that is none."""
    plain = [NewToken(text, False, text) for text in cfg.add_tokens]
    special = [NewToken(text, True, text) for text in cfg.add_special_tokens]
    described = [
        NewToken(text, True, meaning) for text, meaning in _descriptions(cfg.new_special_tokens_config).items()
    ]
    return list({token.text: token for token in (*plain, *special, *described)}.values())


def add(tokenizer: "PreTrainedTokenizerBase", cfg: ModelConfig) -> None:
    """Give the tokenizer the tokens that it lacks, at the end of its ids."""
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    for token in asked_for(cfg):
        if token.text not in known:
            added = AddedToken(token.text, special=token.special, normalized=False)
            tokenizer.add_tokens([added], special_tokens=token.special)


def warn_of_lost_tokens(tokenizer: "PreTrainedTokenizerBase", adapters: Sequence[Source]) -> None:
    """Tell which adapters were trained with tokens that the tokenizer does not know, by the one that was saved with them."""
    known = tokenizer.get_vocab()
    for adapter in adapters:
        file = adapter.folder / "tokenizer.json"
        added = read_json(file).get("added_tokens", []) if file.is_file() else []
        if lost := [each["content"] for each in added if each["content"] not in known]:
            text = f"{adapter.name} was trained with tokens that the tokenizer lacks: {', '.join(lost[:SHOWN])}"
            log.warn("add_tokens", f"{text}; name them again, or what is saved will not know them")


def _descriptions(written: str | None) -> dict[str, str]:
    if written is None:
        return {}
    path = Path(written).expanduser()
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise OptionError(f"new_special_tokens_config: {path} can't be read: {fault.strerror}") from None
    except (UnicodeDecodeError, YAMLError) as fault:
        raise OptionError(f"new_special_tokens_config: {path} can't be read: {' '.join(str(fault).split())}") from None
    if not isinstance(content, dict) or not all(
        isinstance(one, str) and one for pair in content.items() for one in pair
    ):
        raise OptionError(f"new_special_tokens_config: {path}: a token and its description in a line are expected")
    return content
