"""Runs a Jinja chat template as transformers does, in a sandbox and without a clock.  Knows no conversation."""

import datetime
import functools
import json
import re
from collections.abc import Callable
from functools import lru_cache
from types import BuiltinMethodType
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tunesmith.log import OptionError

LEARNED_START, LEARNED_END = "\U0010fffc", "\U0010fffd"
"""Private-use characters around what stands in `{% generation %}` blocks."""

FIXED_DATE = datetime.date(2024, 7, 26)
"""What `strftime_now` tells: the same row must be the same text tomorrow."""

MOST_ROUNDS = 1_000_000
"""Rounds of all loops over numbers while a conversation is written, and parts of what a template multiplies."""

_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token")


class _GenerationBlocks(Extension):
    """`{% generation %}`: what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own way to name an extension's tags

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        return caller()


class _MarkedBlocks(_GenerationBlocks):
    """The same, with marks around it in the text."""

    def _marked(self, caller: Macro) -> str:
        return f"{LEARNED_START}{caller()}{LEARNED_END}"


class _PlainNamespace(Namespace):
    """A namespace that keeps no underscore names, which lead out of the sandbox."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        values = dict(*args, **kwargs)
        for name in values:
            _refuse_private(name)
        super().__init__(values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"names may not begin with an underscore: {name}")


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _date(form: str) -> str:
    return FIXED_DATE.strftime(form)


class _Bounded(ImmutableSandboxedEnvironment):
    """A sandbox whose templates end: they cannot count to millions, nor make a text of gigabytes out of a number."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rounds_left = MOST_ROUNDS
        self.globals["range"] = self._range
        for name in ("center", "indent", "wordwrap", "batch", "slice"):
            self.filters[name] = _bounded(self.filters[name])

    def _range(self, *limits: int) -> range:
        counted = range(*limits)
        self.rounds_left -= len(counted)
        if self.rounds_left < 0:
            raise TemplateError(f"it loops more than {MOST_ROUNDS:,} times")
        return counted

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator != "%" and _size_of(operator, left, right) > MOST_ROUNDS:
            raise TemplateError(f"{operator} makes something of more than {MOST_ROUNDS:,} parts")
        if operator == "%" and isinstance(left, str):
            _refuse_wide(left)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_large((*args, *kwargs.values()))
        if isinstance(function, BuiltinMethodType) and isinstance(function.__self__, str):
            _refuse_wide(function.__self__ if function.__name__ in ("format", "format_map") else "")
        return super().call(context, function, *args, **kwargs)


def _size_of(operator: str, left: Any, right: Any) -> float:
    """About how large the result of `*` or `**` is: parts of a text or list; of a power, the bits of its number."""
    if operator == "**":
        return abs(right) * 64 if isinstance(right, int | float) else 0
    long, times = (right, left) if isinstance(left, int) else (left, right)
    return len(long) * times if isinstance(long, str | list | tuple) and isinstance(times, int) else 0


def _bounded(filter_function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _refuse_large((*args, *kwargs.values()))
        return filter_function(*args, **kwargs)

    return bounded


def _refuse_large(values: tuple[Any, ...]) -> None:
    if any(isinstance(one, int | float) and abs(one) > MOST_ROUNDS for one in values):
        raise TemplateError(f"a number above {MOST_ROUNDS:,} as an argument")


def _refuse_wide(form: str) -> None:
    if re.search(r"[%{][^a-zA-Z}]*(\d{6}|\*)", form):
        raise TemplateError("a format that is wider than any text")


def _environment(blocks: type[Extension]) -> _Bounded:
    environment = _Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[blocks, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _date, "namespace": _PlainNamespace}
    return environment


class Refused(Exception):
    """The chat template raised: it does not take such a conversation, or is wrong."""


@lru_cache(maxsize=16)
def compiled(source: str, *, marked: bool = False) -> Callable[..., str]:
    """The template as a function of its variables, which gives the text; `marked`: with marks around generation blocks.
    OptionError: it is no Jinja.  The function raises Refused with the template's own words."""
    try:
        environment = _environment(_MarkedBlocks if marked else _GenerationBlocks)
        template = environment.from_string(source)
    except TemplateError as error:
        raise OptionError(f"template: the chat template is not valid Jinja: {error}") from None

    def render(**variables: Any) -> str:
        environment.rounds_left = MOST_ROUNDS
        try:
            return template.render(**variables)
        except Exception as error:  # whatever a template does wrong ends here, as an error about the row
            raise Refused(str(error) or type(error).__name__) from error

    return render


def variables(source: str) -> list[str]:
    """Names that the template reads and that are free to set."""
    environment = _environment(_GenerationBlocks)
    names = meta.find_undeclared_variables(environment.parse(source))
    return sorted(name for name in names if name not in _GIVEN and name not in environment.globals)
