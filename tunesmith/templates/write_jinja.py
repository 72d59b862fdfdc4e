"""A template -> the Jinja chat template that gives the same text, to be saved with a model.  Knows no conversation.

Two things it cannot tell and leaves to the words as they are: JSON written as text in an XML dialect's argument, and a
thought inside another.
"""

from collections.abc import Sequence

from tunesmith.templates.conversation import Piece
from tunesmith.templates.dialects import DIALECTS
from tunesmith.templates.dialects.prompts import quoted
from tunesmith.templates.template import Slot, Template, parse_slot


def write_jinja(template: Template) -> str:
    """The Jinja source.  It reads `messages`, `tools`, `add_generation_prompt`, `bos_token`, `eos_token` and, for families
    that think, `enable_thinking`."""
    dialect = DIALECTS[template.tool_format]
    slots = {name: parse_slot(text, name) for name, text in _slots(template).items()}
    return "\n".join(
        [
            f"{{%- macro write_tools(tools) -%}}{dialect.tools.jinja(template.date_string)}{{%- endmacro -%}}",
            f"{{%- macro write_calls(calls) -%}}{dialect.calls.jinja()}{{%- endmacro -%}}",
            _WORDS,
            *_thoughts(template),
            *_opening(template, slots),
            *_turns(template, slots),
            *_ending(slots),
        ]
    )


def _slots(template: Template) -> dict[str, str]:
    return {
        "prefix": template.prefix,
        "system": template.system,
        "user": template.user,
        "assistant": template.assistant,
        "observation": template.observation or template.user,
        "function": template.function or template.assistant,
    }


def _text(pieces: Sequence[Piece]) -> str:
    """Pieces as a Jinja expression."""
    return " ~ ".join(f"{p.text}_token" if p.kind == "token" else quoted(p.text) for p in pieces) or "''"


def _filled(slot: Slot, content: str) -> str:
    """The slot as a Jinja expression, the generation prompt aside."""
    middle = [content] if slot.has_content else []
    return " ~ ".join([_text(slot.before), *middle, _text(slot.after)])


_WORDS = """\
{%- macro words(message) -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- elif message['content'] -%}{%- for part in message['content'] -%}{{- part.get('text', '') -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}"""


def _thoughts(template: Template) -> list[str]:
    """Whether thoughts are removed (`strip`: all, history, none), missing ones added (`add`), and the model told not to
    think (`ask`)."""
    opening, closing = (quoted(word.strip()) for word in template.thought_words)
    default = {True: "true", False: "false", None: "none"}[template.enable_thinking]
    chosen = template.thinking
    if not template.reasoning:
        default = "none"
    enable = f"{{%- set think = enable_thinking if enable_thinking is defined else {default} -%}}"
    strip = {None: "'all' if think is false else ''", "strip": "'all'", "strip_history": "'history'"}.get(chosen, "''")
    add = {None: "think is not none", "empty_masked": "true"}.get(chosen, "false")
    ask = "think is false" if chosen in (None, "empty_masked") else "false"
    return [
        enable if template.reasoning else "{%- set think = none -%}",
        f"{{%- set strip = {strip} -%}}{{%- set add = {add} -%}}{{%- set ask = {ask} -%}}",
        f"{{%- set empty_thought = {quoted(template.empty_thought or ''.join(template.thought_words))} -%}}",
        "{%- macro without_thoughts(text) -%}",
        f"{{%- for part in text.split({opening}) -%}}{{%- if loop.first -%}}{{{{- part -}}}}",
        f"{{%- elif {closing} in part -%}}{{{{- part.split({closing}, 1)[1] -}}}}",
        f"{{%- else -%}}{{{{- {opening} ~ part -}}}}{{%- endif -%}}{{%- endfor -%}}",
        "{%- endmacro -%}",
        "{%- macro said(message, is_history) -%}",
        "{%- set text = words(message) -%}",
        "{%- if message['reasoning_content'] is string -%}",
        f"{{%- set text = {quoted(template.thought_words[0])} ~ message['reasoning_content'] "
        f"~ {quoted(template.thought_words[1])} ~ text -%}}",
        "{%- endif -%}",
        "{{- without_thoughts(text).lstrip('\\n') if strip == 'all' or (strip == 'history' and is_history) else text -}}",
        "{%- endmacro -%}",
        "{%- macro missing_thought(text) -%}",
        f"{{{{- empty_thought if add and {opening} not in text and {closing} not in text -}}}}",
        "{%- endmacro -%}",
    ]


def _opening(template: Template, slots: dict[str, Slot]) -> list[str]:
    """The prefix, and the system prompt with the tools; it waits for a user turn where it goes inside one."""
    return [
        f"{{{{- {_text(slots['prefix'].before)} -}}}}",
        f"{{%- set ns = namespace(waiting='', last=-1, system={quoted(template.default_system)}, turns=messages) -%}}",
        "{%- if messages and messages[0]['role'] in ('system', 'developer') -%}",
        "{%- set ns.system = words(messages[0]) -%}{%- set ns.turns = messages[1:] -%}",
        "{%- endif -%}",
        "{%- set ns.system = ns.system ~ (write_tools(tools) if tools else '') -%}",
        f"{{%- if ns.system -%}}{{%- set ns.waiting = {_filled(slots['system'], 'ns.system')} -%}}{{%- endif -%}}",
        "{%- for message in ns.turns -%}"
        "{%- if message['role'] == 'assistant' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}"
        "{%- endfor -%}",
    ]


def _turns(template: Template, slots: dict[str, Slot]) -> list[str]:
    inside = "ns.waiting ~ words(message)" if template.system_in_user else "words(message)"
    user = _filled(slots["user"], f"({inside})")
    before_user = "''" if template.system_in_user else "ns.waiting"
    answered = (
        "loop.nextitem['role'] == 'assistant' if loop.nextitem is defined else (add_generation_prompt is defined "
        "and add_generation_prompt)"
    )
    said_before = "loop.previtem is defined and loop.previtem['role'] in ('user', 'tool')"
    return [
        "{%- for message in ns.turns -%}",
        f"{{%- set answered = {answered} -%}}",
        "{%- if message['role'] in ('system', 'developer') -%}",
        f"{{%- set ns.waiting = ns.waiting ~ {_filled(slots['system'], 'words(message)')} -%}}",
        "{%- elif message['role'] == 'user' -%}",
        f"{{{{- {before_user} ~ {user} -}}}}{{%- set ns.waiting = '' -%}}",
        f"{{%- if answered -%}}{{{{- {_text(slots['user'].answer)} -}}}}{{%- endif -%}}",
        "{%- elif message['role'] == 'tool' -%}",
        "{{- ns.waiting -}}{%- set ns.waiting = '' -%}",
        *_observation(template, slots["observation"]),
        f"{{%- if answered -%}}{{{{- {_text(slots['observation'].answer)} -}}}}{{%- endif -%}}",
        "{%- elif message['role'] == 'assistant' -%}",
        "{{- ns.waiting -}}{%- set ns.waiting = '' -%}",
        f"{{%- if not ({said_before}) -%}}{{{{- {_text(slots['user'].answer)} -}}}}{{%- endif -%}}",
        "{%- set text = said(message, loop.index0 != ns.last or (add_generation_prompt is defined and "
        "add_generation_prompt)) -%}",
        "{{- missing_thought(text) -}}",
        "{%- if message['tool_calls'] -%}",
        f"{{{{- {_filled(slots['function'], '(text ~ write_calls(message[' + quoted('tool_calls') + ']))')} -}}}}",
        f"{{%- else -%}}{{{{- {_filled(slots['assistant'], 'text')} -}}}}{{%- endif -%}}",
        "{%- else -%}{{- raise_exception('unknown role: ' ~ message['role']) -}}",
        "{%- endif -%}",
        "{%- endfor -%}",
    ]


def _observation(template: Template, slot: Slot) -> list[str]:
    if not template.observation_separator:
        return [f"{{{{- {_filled(slot, 'words(message)')} -}}}}"]
    first = "not (loop.previtem is defined and loop.previtem['role'] == 'tool')"
    more = "loop.nextitem is defined and loop.nextitem['role'] == 'tool'"
    separator = quoted(template.observation_separator)
    return [
        f"{{{{- ({_text(slot.before)}) if {first} -}}}}{{{{- words(message) -}}}}",
        f"{{{{- {separator} if {more} else ({_text(slot.after)}) -}}}}",
    ]


def _ending(slots: dict[str, Slot]) -> list[str]:
    said = "ns.turns and ns.turns[-1]['role'] in ('user', 'tool')"
    return [
        "{{- ns.waiting -}}",
        "{%- if add_generation_prompt is defined and add_generation_prompt -%}",
        f"{{%- if not ({said}) -%}}{{{{- {_text(slots['user'].answer)} -}}}}{{%- endif -%}}",
        "{{- empty_thought if ask -}}",
        "{%- endif -%}",
    ]
