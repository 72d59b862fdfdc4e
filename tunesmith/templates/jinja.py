"""A Jinja chat template, such as a tokenizer brings along -> the same spans as a named template's.  Knows no tokenizer.

The template is rendered with stand-ins for the row's words (`origin.py`), for the whole conversation and for its
beginnings.  From the prompt before an answer to the end of that turn is learned.  The answers are put in afterwards, so
that a template which rewrites them does not change what is trained.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tunesmith import log
from tunesmith.log import DataError
from tunesmith.templates.chat_messages import AS_THEY_ARE, CALL_STYLES, SYSTEM, TOOLS, Style, Words, as_chat
from tunesmith.templates.conversation import Conversation, Message, Piece, Role, Span, Thinking
from tunesmith.templates.origin import Origins
from tunesmith.templates.preface import with_preface
from tunesmith.templates.sandbox import LEARNED_END, LEARNED_START, Refused, compiled, variables
from tunesmith.templates.template import control, data, join

_ANSWERS = ("assistant", "function")
_THOUGHT = re.compile(r"(\s*<think>)(.*?)(</think>)", re.DOTALL)
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*\Z")
_NO_THOUGHT_AFTER_OPENING = "\n</think>\n\n"
_UNFINISHED_MARK = re.compile(r"<[^<>]*\Z")
_BLOCK = re.compile(r"\{%-?\s*generation\b")
_TOKEN = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]{3,30}\]")
_NO_END = (
    "writes no end token behind {}, and the next turn begins with none at which the model stops, so stopping there is not "
    "learned; write one in a copy of it (template: jinja:PATH)"
)
_NO_END_IN_BLOCK = "leaves what ends {} outside its generation blocks, so stopping there is not learned"
_PROBE = Conversation([Message("user", "u"), Message("assistant", "\x0ba\x0b"), Message("user", "v")])
_CALL_PROBE = Conversation(
    [
        Message("user", "u"),
        Message("function", '{"name": "look", "arguments": {"place": "here"}}'),
        Message("observation", "seen"),
        Message("assistant", "a"),
    ],
    tools='[{"name": "look", "description": "d", "parameters": {"type": "object", "properties": {}}}]',
)


class Disturbed(Exception):
    """The template looks into words that were replaced by stand-ins."""


@dataclass(frozen=True)
class JinjaFormat:
    """A Jinja chat template at work."""

    name: str
    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    """`bos_token`, `eos_token` and others by the names that templates know."""
    special: tuple[str, ...] = ()
    """All special tokens of the tokenizer, so that none of them in a row's words counts as one."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """What else the template is told, such as `enable_thinking`."""
    default_system: str | None = None
    thinking: Thinking | None = None
    stops: tuple[str, ...] = ()
    """Tokens at which the model stops, by its own generation config."""
    told: set[str] = field(default_factory=set, compare=False)
    """Warnings that were given already."""

    def render(self, conversation: Conversation) -> list[Span]:
        """Spans of the whole conversation; the assistant's are learned.  DataError: the template refuses it, drops a part
        of it, or asks for the answer otherwise than it then writes it."""
        return self._with_stand_ins(lambda special: _Row(self, conversation, special).spans(), conversation)

    def prompt(self, conversation: Conversation) -> list[Span]:
        """Spans up to where the model is to answer, none learned: the text that the template itself gives."""
        return self._with_stand_ins(
            lambda special: _Row(self, conversation, special, prompt=True).prompt_spans(), conversation
        )

    def chat_template(self) -> str:
        """The template itself, behind what the options and a fixed date say and what it does not take by itself."""
        told = {name: value for name, value in self.variables.items() if name in variables(self.source)}
        return with_preface(
            self.source,
            self.default_system,
            told,
            fold_system=self.style.fold_system,
            none_said=self.style.no_words is None,
        )

    def as_messages(
        self, conversation: Conversation, *, prompt: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Messages and tools with which `chat_template` gives the text of render(), or with `prompt` that of prompt()."""
        row = _Row(self, conversation, only_special=False, prompt=prompt)
        chat = as_chat(replace(row.plain, system=row.own_system), replace(self.style, fold_system=False))
        return chat.messages, chat.tools

    @cached_property
    def stop_words(self) -> tuple[str, ...]:
        """The tokens that end an answer, where they are not the tokenizer's eos."""
        words = [self._end] if self._end else self.closers.values()
        return tuple(dict.fromkeys(word for word in words if word != self.tokens.get("eos_token")))

    @cached_property
    def _end(self) -> str | None:
        """The token that the template writes behind a last answer."""
        try:
            row = _Row(self, replace(_PROBE, messages=_PROBE.messages[:2]), only_special=False)
            suffix = row.ending(1, row.text())
        except (Refused, DataError):
            return None
        known = re.compile("|".join(map(re.escape, self.special)) or r"(?!)")
        found = known.search(suffix) or _TOKEN.search(suffix)
        return found[0] if found else None

    @cached_property
    def closers(self) -> Mapping[Role, str]:
        """Where the template writes no token behind answers: the one with which the next turn begins, if the model stops at
        it, by the role of the answer."""
        if self._end or _BLOCK.search(self.source):
            return {}
        found: dict[Role, str] = {}
        eos = self.tokens.get("eos_token")
        stops = sorted({*self.stops, *([eos] if eos else [])}, key=len, reverse=True)
        probes: dict[Role, Conversation] = {"assistant": _PROBE, "function": _CALL_PROBE}
        for role, probe in probes.items():
            try:
                row = _Row(self, probe, only_special=False)
                full = row.text()
                behind = row.behind(1, full).removeprefix(row.ending(1, full)).lstrip()
            except (Refused, DataError):
                continue
            if token := next((stop for stop in stops if behind.startswith(stop)), None):
                found[role] = token
        return found

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """What an answer can end with; ("",) when nothing is known."""
        eos = self.tokens.get("eos_token")
        return (*self.stop_words, *((eos,) if eos else ())) or ("",)

    def warn_once(self, text: str) -> None:
        """Warn of something about the template, unless it was told before."""
        if text not in self.told:
            self.told.add(text)
            log.warn("template", f"{self.name}: the chat template {text}")

    def _with_stand_ins(self, make: Callable[[bool], list[Span]], conversation: Conversation) -> list[Span]:
        """Spans made with stand-ins for all words, or only for the special tokens in them where the template looks into
        the words."""
        where = f"{conversation.where}: " if conversation.where else ""
        try:
            for only_special in (False, True):
                try:
                    return make(only_special)
                except Disturbed:
                    continue
        except Refused as reason:
            raise DataError(f"{where}the chat template refuses it: {reason}") from None
        except DataError as reason:
            raise DataError(f"{where}{reason}" if conversation.where not in str(reason) else str(reason)) from None
        raise DataError(f"{where}its words change what the chat template does with the rest")

    def made(
        self, messages: Sequence[Mapping[str, Any]], tools: Any, *, prompt: bool = False, marked: bool = False
    ) -> str:
        """The template's text; `marked`: with marks around generation blocks."""
        variables = {**self.tokens, **self.variables}
        make = compiled(self.source, marked=marked)
        return make(messages=messages, tools=tools, add_generation_prompt=prompt, **variables)

    @cached_property
    def style(self) -> Style:
        """How this template wants calls and the system prompt, found by trying."""
        for style in CALL_STYLES:
            if self._shows(_CALL_PROBE, style, turns=(1, 2)):
                break
        else:
            style = CALL_STYLES[0]
        system = replace(_PROBE, system="s")
        if not self._shows(system, style, turns=(SYSTEM,)):
            style = replace(style, fold_system=True)
        return style

    def _shows(self, conversation: Conversation, style: Style, turns: Sequence[int]) -> bool:
        row = _Row(self, conversation, only_special=False, style=style)
        try:
            text = row.text()
        except Refused:
            return False
        return all(row.origins.shown_whole(text, turn) for turn in turns)

    @cached_property
    def trim(self) -> Callable[[str], str]:
        """What the template cuts off an answer's ends."""
        try:
            text = self.made(as_chat(_PROBE, Style()).messages, None)
        except Refused:
            return _as_is
        for cut in (_as_is, str.rstrip, str.lstrip, str.strip):
            if cut("\x0ba\x0b") in text:
                return cut
        return _as_is

    @cached_property
    def thinks(self) -> bool:
        """Whether the template knows of thoughts."""
        return "</think>" in self.source

    def policy(self, conversation: Conversation) -> Thinking | None:
        """What happens to the row's thoughts.  A model told not to think is not shown any."""
        told = self.variables.get("enable_thinking") is False and "enable_thinking" in self.source
        return conversation.thinking or self.thinking or ("strip" if told else None)


class _Row:
    """One conversation on its way through a template.  A turn is a message's place, the system prompt aside."""

    def __init__(
        self,
        form: JinjaFormat,
        conversation: Conversation,
        only_special: bool,
        *,
        style: Style | None = None,
        prompt: bool = False,
        asks: bool = False,
    ):
        """`prompt`: all its answers are history; `asks`: the answer that it asks for is a turn of its own, at the end."""
        self.form, self.asks, self.only_special = form, asks, only_special
        system, turns = conversation.system, list(conversation.messages)
        self.first = 0
        if system is None and turns and turns[0].role == "system":
            system, turns, self.first = turns[0].content, turns[1:], 1
        self.own_system = system
        turns = _with_thoughts(turns, form.policy(conversation), history_only=prompt)
        self.turns = [*turns, Message("assistant", "")] if asks else turns
        self.where = conversation.where
        self.plain = replace(conversation, messages=turns, system=form.default_system if system is None else system)
        self.origins = Origins(form.special, only_special=only_special)
        self.wholes: dict[int, str] = {}
        self.words: dict[int, str] = {}
        self.style = style or form.style
        answering = replace(self.plain, messages=self.turns)
        follow = self.origins.follow
        self.names: list[tuple[int, str]] = []
        words = Words(follow, self._whole, self.origins.follow_value, follow, self._name)
        self.chat = as_chat(answering, self.style, words)
        self.unfollowed = as_chat(answering, self.style, replace(AS_THEY_ARE, answer=lambda turn, _: self.wholes[turn]))

    def _whole(self, turn: int, text: str) -> str:
        """A stand-in for what an answer says, which the template is not to see.  Its words are kept for later."""
        self.words[turn] = text
        self.wholes[turn] = self.origins.whole(turn)
        return self.wholes[turn]

    def _name(self, turn: int, text: str) -> str:
        """A stand-in for the name of a tool that a turn calls."""
        made = self.origins.name(turn, text)
        self.names.append((turn, made))
        return made

    def text(self, turns: int | None = None, *, prompt: bool = False) -> str:
        """The template's text of the first turns, or of all, in stand-ins."""
        messages = self.chat.messages if turns is None else self.chat.until(turns)
        return self.form.made(messages, self.chat.tools, prompt=prompt)

    def blocks(self) -> list[tuple[int, int]]:
        """Where generation blocks begin and end in the whole text."""
        if not _BLOCK.search(self.form.source):
            return []
        blocks, length = [], 0
        marked = self.form.made(self.chat.messages, self.chat.tools, marked=True)
        for number, part in enumerate(re.split(f"[{LEARNED_START}{LEARNED_END}]", marked)):
            if number % 2:
                blocks.append((length, length + len(part)))
            length += len(part)
        return blocks

    def spans(self) -> list[Span]:
        """The row as spans."""
        full, blocks = self.text(), self.blocks()
        self._check(full)
        spans: list[Span] = []
        done = 0
        for turn, message in enumerate(self.turns):
            if message.role not in _ANSWERS:
                continue
            first, last = self._place(full, turn)
            block = next((block for block in blocks if block[0] <= first < block[1]), None)
            if blocks and not block:
                continue
            asked, lead, answer = self._asked(full, done, first, turn, block)
            done = block[1] if block else last + len(self.ending(turn, full))
            done, closer = self._closed(full, last, done, turn)
            spans += self._span(self._pieces(asked), False, turn - 1)
            body = self._pieces(full[first:last], answer)
            spans += self._span([*self._pieces(lead), *body, *self._pieces(full[last:done]), *closer], True, turn)
        return [*spans, *self._span(self._pieces(full[done:]), False, len(self.turns) - 1)]

    def prompt_spans(self) -> list[Span]:
        """The row as a prompt: as spans() divides it where that is the template's own text, else in one piece."""
        plain = as_chat(self.plain, self.style)
        wanted = self.form.made(plain.messages, plain.tools, prompt=True)
        try:
            asking = _Row(self.form, self.plain, self.only_special, style=self.style, prompt=True, asks=True)
            spans = [replace(span, learned=False) for span in asking.spans()[:-1]]
            if "".join(span.text for span in spans) == wanted:
                return spans
        except (Refused, DataError, Disturbed):
            pass
        follow = self.origins.follow
        words = Words(follow, follow, self.origins.follow_value, follow, self.origins.name)
        chat = as_chat(self.plain, self.style, words)
        made = self.form.made(chat.messages, chat.tools, prompt=True)
        if self.origins.restored(made) != wanted:
            raise Disturbed
        return self._span(self.origins.pieces(made), False, len(self.turns) - 1)

    def _span(self, pieces: Iterable[Piece], learned: bool, turn: int) -> list[Span]:
        role: Role = self.turns[turn].role if turn >= 0 else "user"
        joined = join(pieces)
        return [Span(joined, learned, role, turn + self.first)] if joined else []

    def _check(self, full: str) -> None:
        """Disturbed: the stand-ins changed the text.  DataError: the template leaves out a turn."""
        wanted = self.form.made(self.unfollowed.messages, self.unfollowed.tools)
        if self.origins.restored(full) != wanted:
            raise Disturbed
        for turn in self.origins.left_out(full) if not self.only_special else ():
            if turn == TOOLS:
                self.form.warn_once("does not show the tools of rows that have some")
            else:
                role = "system" if turn == SYSTEM else self.turns[turn].role
                raise DataError(f"the chat template leaves out the {role} turn{_number(turn)}")
        if lost := next((turn for turn, name in self.names if name not in full), None):
            raise DataError(f"the chat template leaves out a call{_number(lost)}")

    def _place(self, full: str, turn: int) -> tuple[int, int]:
        place = self.origins.span(full, turn)
        if place is None:
            raise DataError(f"the chat template leaves out the answer{_number(turn)}")
        return place

    def ending(self, turn: int, full: str) -> str:
        """What the template writes behind an answer before anything else comes.  An end token may differ from the one
        behind a last answer."""
        behind = self.behind(turn, full)
        if turn + 1 == len(self.turns):
            return behind
        alone = self.text(turn + 1)
        shared = _shared(alone[self._place(alone, turn)[1] :], behind)
        cut = next((token.end() for token in _TOKEN.finditer(behind) if token.start() < len(shared) < token.end()), 0)
        return behind[: max(cut, len(shared))]

    def behind(self, turn: int, full: str) -> str:
        """Everything behind an answer."""
        return full[self._place(full, turn)[1] :]

    def _closed(self, full: str, last: int, done: int, turn: int) -> tuple[int, list[Piece]]:
        """Where the answer's end ends, with the next turn's first token where that is what stops the model; behind the
        last answer, that token.  Warns when nothing ends it."""
        if any(word in full[last:done] for word in self.form.ends):
            return done, []
        closer = self.form.closers.get(self.turns[turn].role)
        rest = full[done:]
        if closer and rest.lstrip().startswith(closer):
            return done + rest.index(closer) + len(closer), []
        if closer and turn + 1 == len(self.turns):
            return done, [control(closer)]
        reason = _NO_END_IN_BLOCK if _BLOCK.search(self.form.source) else _NO_END
        self.form.warn_once(reason.format("a tool call" if self.turns[turn].role == "function" else "an answer"))
        return done, []

    def _asked(
        self, full: str, done: int, first: int, turn: int, block: tuple[int, int] | None
    ) -> tuple[str, str, str]:
        """What stands before the answer unlearned, what of the template's words is learned with it, and its own words."""
        answer = self.form.trim(self.words.get(turn, ""))
        thought = _THOUGHT.match(answer) if self.form.thinks else None
        head = full[done:first]
        if thought or self._is_asked_for(turn):
            head = _EMPTY_THOUGHT.sub("", head)
        asked = self._asked_by_prompt(full[:done], turn)
        if block:  # what the prompt says already is not learned, whatever the block holds
            asked = max(head[: max(0, block[0] - done)], asked if head.startswith(asked) else "", key=len)
        if thought and asked.rstrip().endswith("</think>"):
            raise DataError(
                f"the chat template asks for the answer{_number(turn)} without a thought, but it has one; take thoughts "
                "out (thinking: strip) or tell the template to think (enable_thinking, or template_args)"
            )
        same = asked if head.startswith(asked) else _UNFINISHED_MARK.sub("", _shared(head, asked))
        written, opened = head[len(same) :], asked[len(same) :]
        if not opened:
            return (head, "", answer) if "</think>" in written and not thought else (asked, written, answer)
        if self._is_asked_for(turn) or ("</think>" in opened and not thought and not written):
            return asked, "", answer
        if _EMPTY_THOUGHT.fullmatch(opened) and not thought and self.turns[turn].role == "function":
            return asked, written, answer
        if opened.strip() == "<think>" and written.strip() in ("", "</think>"):
            if thought:
                exact = answer.startswith(opened)
                return asked, "", answer[len(opened) :] if exact else answer.lstrip()[len("<think>") :].lstrip()
            return (head if written else asked + _NO_THOUGHT_AFTER_OPENING), "", answer
        asked, head = (self.origins.restored(text)[-60:] for text in (asked, head))
        raise DataError(
            f"the chat template asks for the answer{_number(turn)} with {asked!r} but writes it after {head!r}"
        )

    def _asked_by_prompt(self, before: str, turn: int) -> str:
        """What the prompt for an answer adds to what stands before it."""
        prompt = self.text(turn, prompt=True)
        if not prompt.startswith(before):
            raise DataError(f"the chat template rewrites what stands before the answer{_number(turn)}")
        return prompt[len(before) :]

    def _is_asked_for(self, turn: int) -> bool:
        return self.asks and turn + 1 == len(self.turns)

    def _pieces(self, text: str, answer: str | None = None) -> Iterator[Piece]:
        """Text in stand-ins as pieces.  `answer`: what the stand-in of a whole answer stands for, if not all its words."""
        end = 0
        for place, turn in sorted(
            (text.find(made), turn) for made, turn in self.origins.wholes.items() if made in text
        ):
            yield from self.origins.pieces(text[end:place])
            yield from self._answer(self.form.trim(self.words[turn]) if answer is None else answer)
            end = place + 1
        yield from self.origins.pieces(text[end:])

    def _answer(self, words: str) -> Iterator[Piece]:
        """An answer's pieces.  The marks of its thought are the template's words, if the template knows thoughts."""
        thought = _THOUGHT.match(words) if self.form.thinks else None
        if thought:
            yield from (control(thought[1]), data(thought[2]), control(thought[3]))
        yield data(words[thought.end() :] if thought else words)


def _with_thoughts(turns: Sequence[Message], thinking: Thinking | None, *, history_only: bool) -> list[Message]:
    """The turns with thoughts removed from the answers that the policy names."""
    if thinking not in ("strip", "strip_history"):
        return list(turns)
    answers = [turn for turn, message in enumerate(turns) if message.role in _ANSWERS]
    kept = answers[-1:] if thinking == "strip_history" and not history_only else []
    return [
        replace(message, content=_THOUGHT.sub("", message.content).lstrip("\n"))
        if turn in answers and turn not in kept
        else message
        for turn, message in enumerate(turns)
    ]


def _shared(one: str, other: str) -> str:
    """The beginning that two texts share."""
    length = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if length is None else length]


def _number(turn: int) -> str:
    return f" (turn {turn + 1})" if turn >= 0 else ""


def _as_is(text: str) -> str:
    return text
