"""What ends an answer: tokens and texts, found in one place for chat, evaluation and prediction.  Knows tokenizers; makes no
token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Stops:
    """An answer ends at one of `tokens`, or before one of `texts`."""

    tokens: frozenset[int]
    texts: tuple[str, ...] = ()


def stops(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Sequence[str] = (), tokens: Iterable[int] = ()
) -> Stops:
    """The end tokens of tokenizer, of the model's `generation_config.json` and those given; `words` are control tokens where
    the tokenizer has them as such, else texts."""
    named = model.generation_config.eos_token_id
    listed = [one for one in (named if isinstance(named, list) else [named]) if type(one) is int]
    ends = {*listed, tokenizer.eos_token_id, *tokens} - {None}
    control = tokenizer.get_added_vocab()
    return Stops(
        frozenset(ends | {control[word] for word in words if word in control}),
        tuple(word for word in words if word not in control),
    )
