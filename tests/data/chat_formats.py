"""Small chat formats and tokenizers for the tests of data.  Knows ChatML only; knows no template of the program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunesmith.templates.conversation import Conversation, Message, Piece, Span

PROMPT_END = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class ChatML:
    """`<|im_start|>role\\n...<|im_end|>\\n`; the answer's span holds its end token."""

    name: str = "chatml"
    stop_words: tuple[str, ...] = ("<|im_end|>",)

    def render(self, conversation: Conversation) -> list[Span]:
        spans: list[Span] = []
        opening: list[Piece] = []
        if conversation.system:
            opening = [Piece("<|im_start|>system\n"), Piece(conversation.system, "data"), Piece("<|im_end|>\n")]
        for index, message in enumerate(conversation.messages):
            if message.role in ("assistant", "function"):
                spans.append(Span((Piece(message.content, "data"), Piece("<|im_end|>\n")), True, message.role, index))
                continue
            more = conversation.messages[index + 1 : index + 2]
            end = PROMPT_END if not more or more[0].role in ("assistant", "function") else "<|im_end|>\n"
            asked = (Piece("<|im_start|>user\n"), Piece(message.content, "data"), Piece(end))
            spans.append(Span((*opening, *asked), False, message.role, index))
            opening = []
        return spans

    def prompt(self, conversation: Conversation) -> list[Span]:
        return self.render(conversation)

    def chat_template(self) -> str:
        return (
            "{% for m in messages %}{{ '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] ~ '<|im_end|>\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
        )

    def as_messages(self, conversation: Conversation, *, prompt: bool = False) -> tuple[list[dict[str, Any]], None]:
        return as_messages(conversation), None


@dataclass(frozen=True)
class Colons:
    """`USER: ... ASSISTANT: ...` between bos and eos, as older formats write it, without control tokens of its own."""

    name: str = "colons"
    stop_words: tuple[str, ...] = ()

    def render(self, conversation: Conversation) -> list[Span]:
        spans: list[Span] = []
        for index, message in enumerate(conversation.messages):
            if message.role == "assistant":
                pieces = (Piece(message.content, "data"), Piece("eos", "token"))
                spans.append(Span(pieces, True, "assistant", index))
            else:
                bos = (Piece("bos", "token"),) if index == 0 else ()
                pieces = (*bos, Piece("USER: "), Piece(message.content, "data"), Piece(" ASSISTANT: "))
                spans.append(Span(pieces, False, "user", index))
        return spans

    def prompt(self, conversation: Conversation) -> list[Span]:
        return self.render(conversation)

    def chat_template(self) -> str:
        return (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ (bos_token or '') if loop.first }}"
            "{{ 'USER: ' ~ m['content'] ~ ' ASSISTANT: ' }}{% else %}{{ m['content'] ~ eos_token }}{% endif %}{% endfor %}"
        )

    def as_messages(self, conversation: Conversation, *, prompt: bool = False) -> tuple[list[dict[str, Any]], None]:
        return as_messages(conversation)[1 if conversation.system else 0 :], None


def as_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation for a template that knows user and assistant."""
    told = [{"role": "system", "content": conversation.system}] if conversation.system else []
    answers = ("assistant", "function")
    return [
        *told,
        *({"role": "assistant" if m.role in answers else "user", "content": m.content} for m in conversation.messages),
    ]


def conversation(*turns: str, system: str | None = None, where: str = "rows.json row 1") -> Conversation:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[index % 2], turn) for index, turn in enumerate(turns))
    return Conversation(messages, system=system, where=where)


def metaspace(prepend_scheme: str, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that marks words with `▁`, as SentencePiece does: characters, the mark, and whole `words`."""
    characters = sorted(
        {character for word in words for character in word} | set("▁ABCDEFGHIJKLMNOPQRSTUVWXYZ: \n<|_>")
    )
    vocabulary = {token: id for id, token in enumerate(["<s>", "</s>", "<unk>", *characters])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    backend.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
