"""What every engine offers, whether it runs here or answers over HTTP.  Knows conversations; knows no model."""

from collections.abc import Generator, Sequence
from typing import Protocol

from tunesmith.generate.sampling import Sampling
from tunesmith.templates.conversation import Conversation


class Engine(Protocol):
    """Answers conversations that end with a user or observation turn.  The same conversation, sampling and seed give
    the same answer, whatever was answered before."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        """The answer in pieces, as it is made.  A piece never ends inside a character; joined they are `answer`'s
        text.  Closing the iterator stops the work."""
        ...

    def answer(self, conversation: Conversation, sampling: Sampling) -> str:
        """The whole answer."""
        ...

    def answer_many(self, conversations: Sequence[Conversation], sampling: Sampling, *, rows: int = 8) -> list[str]:
        """One answer per conversation, in their order; at most `rows` are worked on at once."""
        ...
