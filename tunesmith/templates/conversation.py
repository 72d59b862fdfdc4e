"""What templates take and give: conversations in, spans of text out.  Knows no template and no tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant", "function", "observation"]
"""`function` is an assistant turn that calls tools (its content: the calls as JSON); `observation` a tool's result."""

Thinking = Literal["as_data", "strip_history", "empty_masked", "strip"]
"""`as_data`: answers as they are; `strip_history`: no thoughts before the last answer; `empty_masked`: an empty thought,
never learned, where there is none; `strip`: no thoughts."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.  `loss` overrides whether it is trained: True, False, or a weight; None leaves it to the options."""

    role: Role
    content: str
    loss: bool | float | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of data, whatever its format was.  `system` None: the template's default; `tools`: JSON or ''."""

    messages: Sequence[Message]
    system: str | None = None
    tools: str = ""
    where: str = ""
    """File and row it came from, for messages: `identity.json row 12`."""
    thinking: Thinking | None = None
    """What happens to this row's thoughts; None leaves it to the template's options."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one origin.  `control`: the template's own words, in which control tokens are meant; `data`: a user's or
    a model's words, in which they never are; `token`: the name of a token the tokenizer decides, `bos` or `eos`."""

    text: str
    kind: Literal["control", "data", "token"] = "control"


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring pieces that are all learned or all not.  `role`: whose turn it is, for display."""

    pieces: tuple[Piece, ...]
    learned: bool
    role: Role = "user"
    message: int = field(default=-1)
    """Index of the message it belongs to; -1 for none."""

    @property
    def text(self) -> str:
        """The text with `<BOS>` and `<EOS>` written out."""
        return "".join(f"<{p.text.upper()}>" if p.kind == "token" else p.text for p in self.pieces)


class ChatFormat(Protocol):
    """A way to write conversations: a named template, or a tokenizer's own."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def stop_words(self) -> tuple[str, ...]:
        """Tokens besides the tokenizer's eos that end a turn."""
        ...

    def render(self, conversation: Conversation) -> list[Span]:
        """Spans of the whole conversation, to train on.  Learned spans are the assistant's parts with their end token
        (role options such as `mask_history` are applied afterwards, by `data.encode`)."""
        ...

    def prompt(self, conversation: Conversation) -> list[Span]:
        """Spans up to where the model is to answer the last user or observation turn; none is learned."""
        ...

    def chat_template(self) -> str | dict[str, str]:
        """A Jinja chat template that gives the same text, to be saved with the model; several by name where the
        tokenizer has several."""
        ...

    def as_messages(
        self, conversation: Conversation, *, prompt: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Messages and tools with which that template gives the text of render(), or with `prompt` that of prompt().
        DataError: calls or tools that are not JSON."""
        ...
