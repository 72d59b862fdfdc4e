"""What the option `template` means: a named template with its changes, one of the user's own, or a Jinja template.
Takes plain values; knows no config and no tokenizer class."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tunesmith.log import OptionError
from tunesmith.templates.conversation import ChatFormat, Thinking
from tunesmith.templates.dialects import DIALECTS
from tunesmith.templates.jinja import JinjaFormat
from tunesmith.templates.render import TemplateFormat
from tunesmith.templates.sandbox import compiled, variables
from tunesmith.templates.several import DEFAULT, WITH_TOOLS, SeveralFormats
from tunesmith.templates.template import Template, parse_slot

_JINJA = "jinja:"


@dataclass(frozen=True)
class TokenizerWords:
    """What of a tokenizer a chat format may need."""

    chat_template: str | Mapping[str, str] | None = None
    """Its own chat template, or several by name (`default`, `tool_use`)."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Its `special_tokens_map`: `bos_token`, `eos_token` and so on."""
    special: Sequence[str] = ()
    """The text of all its special tokens."""
    stops: Sequence[str] = ()
    """Tokens at which the model stops, by its `generation_config.json`."""


@dataclass(frozen=True)
class Changes:
    """The options beside `template` that change what it means; None leaves the template's own."""

    template_args: Mapping[str, Any] = field(default_factory=dict)
    default_system: str | None = None
    tool_format: str | None = None
    enable_thinking: bool | None = True
    """`template_args` has the last word on it."""
    thinking: Thinking | None = None


def resolve(
    template: str | Mapping[str, Any],
    changes: Changes = Changes(),
    tokenizer: TokenizerWords = TokenizerWords(),
    *,
    named: Callable[[str], Template],
) -> ChatFormat:
    """The chat format that `template` means: a name for `named` (the index page's lookup), `auto`, `jinja:PATH`, `custom`
    with `template_args`, or a mapping that declares a template.  OptionError: unknown names, keys and values, a missing
    file, `auto` for a tokenizer without a chat template."""
    if isinstance(template, Mapping):
        parts = {**template, **changes.template_args}
        if problems := problems_of_parts(parts):
            raise OptionError(*(f"template: {problem}" for problem in problems))
        changes, template = dataclasses.replace(changes, template_args=parts), "custom"
    if template == "auto":
        return _own_format(changes, tokenizer)
    if template.startswith(_JINJA):
        return _jinja_format(template, _read(template.removeprefix(_JINJA)), changes, tokenizer)
    return TemplateFormat(changed(_custom(changes) if template == "custom" else named(template), changes))


def changed(template: Template, changes: Changes) -> Template:
    """The template with the options applied.  OptionError: a key of `template_args` that is no field of a template, or a
    value of the wrong kind."""
    values = _checked(changes.template_args)
    if changes.default_system is not None:
        values["default_system"] = changes.default_system
    if changes.tool_format is not None:
        values["tool_format"] = changes.tool_format
    if changes.thinking is not None:
        values["thinking"] = changes.thinking
    return dataclasses.replace(template, **{"enable_thinking": changes.enable_thinking, **values})


def _custom(changes: Changes) -> Template:
    if missing := _missing(changes.template_args):
        raise OptionError(f"template_args: template custom {missing}")
    return Template(name="custom", user="", assistant="")


def problems_of_parts(parts: Mapping[str, Any]) -> list[str]:
    """What is wrong with a template that is declared by its parts, a sentence for each; [] when nothing is."""
    missing = _missing(parts)
    problems = [missing] if missing else []
    for key, value in parts.items():
        if problem := _wrong(key, value):
            problems.append(problem)
        elif isinstance(value, str) and key in ("user", "assistant", "system", "observation", "function", "prefix"):
            try:
                parse_slot(value, key)
            except OptionError as reason:
                problems.append(str(reason))
    dialect = parts.get("tool_format", "default")
    if isinstance(dialect, str) and dialect not in DIALECTS:
        problems.append(f"tool_format: unknown dialect '{dialect}'; allowed: {', '.join(DIALECTS)}")
    return problems


def _missing(parts: Mapping[str, Any]) -> str:
    missing = [key for key in ("user", "assistant") if key not in parts]
    return f"needs {' and '.join(missing)}" if missing else ""


_FIELDS = {each.name: each for each in dataclasses.fields(Template)}


def _wrong(key: str, value: Any) -> str:
    """What is wrong with a part of a template, or ''."""
    if key not in _FIELDS:
        return f"unknown key '{key}'{_nearest(key)} allowed: {', '.join(_FIELDS)}"
    wanted = _FIELDS[key].type
    return "" if _fits(_as_tuple(value), wanted) else f"{key} must be {_KINDS[wanted]}, got {value!r}"


def _nearest(key: str) -> str:
    close = difflib.get_close_matches(key, list(_FIELDS), n=1)
    return f"; did you mean '{close[0]}'?" if close else ";"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _checked(args: Mapping[str, Any]) -> dict[str, Any]:
    if problems := [problem for key, value in args.items() if (problem := _wrong(key, value))]:
        raise OptionError(*(f"template_args: {problem}" for problem in problems))
    return {key: _as_tuple(value) for key, value in args.items()}


_KINDS: dict[Any, str] = {
    str: "a text",
    bool: "true or false",
    bool | None: "true, false or null",
    tuple[str, ...]: "a list of texts",
    tuple[str, str]: "a list of two texts",
    Thinking | None: "one of " + ", ".join(get_args(Thinking)),
}


def _fits(value: Any, wanted: Any) -> bool:
    if wanted in (tuple[str, ...], tuple[str, str]):
        texts = isinstance(value, tuple) and all(isinstance(text, str) for text in value)
        return texts and (wanted == tuple[str, ...] or len(value) == 2)
    if wanted == Thinking | None:
        return value is None or value in get_args(Thinking)
    return isinstance(value, wanted)


_JINJA_ARGS = ("default_system", "enable_thinking", "thinking", "date_string")


def _jinja_format(name: str, source: str, changes: Changes, tokenizer: TokenizerWords) -> JinjaFormat:
    """A Jinja template with the options applied; `template_args` may also set the variables that the template reads."""
    compiled(source)
    args = dict(changes.template_args)
    free = variables(source)
    if unknown := [key for key in args if key not in (*_JINJA_ARGS, *free)]:
        allowed = ", ".join(dict.fromkeys((*_JINJA_ARGS, *free)))
        raise OptionError(
            *(f"template_args: unknown key '{key}' for template {name}; allowed: {allowed}" for key in unknown)
        )
    if changes.tool_format is not None:
        raise OptionError(
            f"tool_format: template {name} writes tools in its own way; choose a named template to change it"
        )
    system, thinking = args.pop("default_system", None), args.pop("thinking", None) if "thinking" not in free else None
    # Told only when switched off: else the model's own default holds.
    told = {"enable_thinking": False} if changes.enable_thinking is False else {}
    return JinjaFormat(
        name,
        source,
        tokens=dict(tokenizer.tokens),
        special=tuple(tokenizer.special),
        variables={**told, **args},
        default_system=changes.default_system if changes.default_system is not None else system,
        thinking=changes.thinking or thinking,
        stops=tuple(tokenizer.stops),
    )


def _own_format(changes: Changes, tokenizer: TokenizerWords) -> ChatFormat:
    """The tokenizer's own chat template, or its several ones."""
    own = tokenizer.chat_template
    if isinstance(own, Mapping) and own and DEFAULT not in own:
        raise OptionError(
            f"template: auto needs a chat template named {DEFAULT}, and the tokenizer has {', '.join(own)}; "
            "write one of them into a file and name that (template: jinja:PATH)"
        )
    if not own:
        raise OptionError(
            "template: auto needs a tokenizer with a chat template, and this one has none; "
            "choose a name such as chatml, llama3, qwen3, mistral, gemma or default"
        )
    if isinstance(own, str):
        return _jinja_format("auto", own, changes, tokenizer)
    plain = _jinja_format("auto", own[DEFAULT], changes, tokenizer)
    tools = _jinja_format("auto", own.get(WITH_TOOLS, own[DEFAULT]), changes, tokenizer)
    return SeveralFormats(plain, tools, own)


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"template: cannot read {path}: {error}") from None
