"""Several Jinja chat templates of one tokenizer: that of conversations with tools, and that of all others.  Knows no
tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.templates.conversation import Conversation, Span
from tunesmith.templates.jinja import JinjaFormat

DEFAULT, WITH_TOOLS = "default", "tool_use"
"""What transformers calls the two that it chooses between."""


@dataclass(frozen=True)
class SeveralFormats:
    """The template named `tool_use` for conversations with tools, `default` for the rest, as transformers chooses."""

    plain: JinjaFormat
    with_tools: JinjaFormat
    sources: Mapping[str, str]
    """All of the tokenizer's templates by name."""

    @property
    def name(self) -> str:
        """What the user calls them."""
        return self.plain.name

    @property
    def stop_words(self) -> tuple[str, ...]:
        """The tokens that end an answer in either."""
        return tuple(dict.fromkeys((*self.plain.stop_words, *self.with_tools.stop_words)))

    def render(self, conversation: Conversation) -> list[Span]:
        """Spans of the whole conversation; the assistant's are learned."""
        return self._of(conversation).render(conversation)

    def prompt(self, conversation: Conversation) -> list[Span]:
        """Spans up to where the model is to answer."""
        return self._of(conversation).prompt(conversation)

    def chat_template(self) -> dict[str, str]:
        """All templates by name, as the tokenizer has them."""
        used = {DEFAULT: self.plain.chat_template(), WITH_TOOLS: self.with_tools.chat_template()}
        return {name: used.get(name, source) for name, source in self.sources.items()}

    def as_messages(
        self, conversation: Conversation, *, prompt: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Messages and tools for the template that the conversation is written in."""
        return self._of(conversation).as_messages(conversation, prompt=prompt)

    def _of(self, conversation: Conversation) -> JinjaFormat:
        return self.with_tools if conversation.tools else self.plain
