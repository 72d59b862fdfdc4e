"""What the option `template` means: a named template with its changes, one of the user's own, or a Jinja template.
Takes plain values; knows no config and no tokenizer class."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tunesmith.log import OptionError
from tunesmith.templates.conversation import ChatFormat, Thinking
from tunesmith.templates.jinja import JinjaFormat
from tunesmith.templates.render import TemplateFormat
from tunesmith.templates.sandbox import compiled, variables
from tunesmith.templates.several import DEFAULT, WITH_TOOLS, SeveralFormats
from tunesmith.templates.template import Template

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
        changes = dataclasses.replace(changes, template_args={**template, **changes.template_args})
        template = "custom"
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
    if missing := [key for key in ("user", "assistant") if key not in changes.template_args]:
        raise OptionError(f"template_args: template custom needs {' and '.join(missing)}")
    return Template(name="custom", user="", assistant="")


def _checked(args: Mapping[str, Any]) -> dict[str, Any]:
    fields = {each.name: each for each in dataclasses.fields(Template)}
    problems, values = [], {}
    for key, value in args.items():
        if key not in fields:
            problems.append(f"template_args: unknown key '{key}'; allowed: {', '.join(fields)}")
            continue
        wanted = fields[key].type
        values[key] = tuple(value) if isinstance(value, list) else value
        if not _fits(values[key], wanted):
            problems.append(f"template_args: {key} must be {_KINDS[wanted]}, got {value!r}")
    if problems:
        raise OptionError(*problems)
    return values


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
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"template: cannot read {path}: {error}") from None
