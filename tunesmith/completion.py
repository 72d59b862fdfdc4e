"""Completion scripts for shells: commands, option names, and the values of those that have a list.  Static text."""

from tunesmith import catalog, log
from tunesmith.cli import COMMANDS
from tunesmith.config import compat
from tunesmith.config.explain import NAMES_IN_CATALOG, docstrings, first_sentence
from tunesmith.config.own_words import OWN_WORDS, OwnWord
from tunesmith.config.schema import fields
from tunesmith.config.shapes import shape_of

BASH = """\
# tunesmith completion; load with: source <(tunesmith completion bash)
_tunesmith() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  if (( COMP_CWORD == 1 )); then COMPREPLY=( $(compgen -W "{commands}" -- "$word") ); return; fi
  if [[ ${{COMP_WORDS[1]}} == explain ]]; then COMPREPLY=( $(compgen -W "{names}" -- "$word") ); return; fi
  case $before in
{cases}
  esac
  if [[ $word == --* ]]; then COMPREPLY=( $(compgen -W "{options}" -- "$word") )
  else COMPREPLY=( $(compgen -f -- "$word") ); fi
}}
complete -o filenames -F _tunesmith tunesmith llamafactory-cli
"""

ZSH = """\
#compdef tunesmith llamafactory-cli
# tunesmith completion; load with: source <(tunesmith completion zsh)
_tunesmith() {{
  if (( CURRENT == 2 )); then compadd -- {commands}; return; fi
  if [[ $words[2] == explain ]]; then compadd -- {names}; return; fi
  case $words[CURRENT-1] in
{cases}
  esac
  if [[ $words[CURRENT] == --* ]]; then compadd -- {options}; else _files; fi
}}
compdef _tunesmith tunesmith llamafactory-cli
"""

SHELLS = ("bash", "zsh", "fish")


def values() -> dict[str, list[str]]:
    """Option -> its values, where there is a list of them."""
    found: dict[str, list[str]] = {}
    for name in fields():
        shape = shape_of(name)
        words = [str(choice) for choice in (shape.item.choices if shape.item else shape.choices)]
        words += ["true", "false"] if shape.is_switch() else []
        words += catalog.names(NAMES_IN_CATALOG[name]) if name in NAMES_IN_CATALOG and not words else []
        words += ["auto"] if name == "template" else []
        if words:
            found[name] = words
    return found


def own_words() -> dict[str, OwnWord]:
    """The words that single commands take beside the options, by name."""
    return {word.name: word for words in OWN_WORDS.values() for word in words}


def script(shell: str, commands: list[str]) -> str:
    """The completion script of a shell."""
    if shell == "fish":
        return _fish(commands)
    form = {
        "bash": '    --{}) COMPREPLY=( $(compgen -W "{}" -- "$word") ); return;;',
        "zsh": "    --{}) compadd -- {}; return;;",
    }
    names = [*fields(), *compat.CANONICAL]
    return {"bash": BASH, "zsh": ZSH}[shell].format(
        commands=" ".join(commands),
        names=" ".join(fields()),
        options=" ".join(f"--{name}" for name in [*names, *own_words()]),
        cases="\n".join(form[shell].format(name, " ".join(words)) for name, words in values().items()),
    )


def _fish(commands: list[str]) -> str:
    lines = ["# tunesmith completion; load with: tunesmith completion fish | source"]
    known = values()
    for program in ("tunesmith", "llamafactory-cli"):
        lines.append(f"complete -c {program} -n __fish_use_subcommand -a '{' '.join(commands)}'")
        for name in fields():
            help_text = first_sentence(docstrings()[name]).replace("\\", "\\\\").replace("'", "\\'")
            takes = f" -x -a '{' '.join(known[name])}'" if name in known else " -r"
            lines.append(f"complete -c {program} -l {name}{takes} -d '{help_text}'")
        for command, words in OWN_WORDS.items():
            only = f"-n '__fish_seen_subcommand_from {command}'"
            lines += [f"complete -c {program} {only} -l {word.name}{' -r' * bool(word.value)}" for word in words]
    return "\n".join(lines) + "\n"


def completion_command(words: list[str]) -> int:
    """Print the script of the shell named."""
    if len(words) != 1 or words[0] not in SHELLS:
        got = f", got '{' '.join(words)}'" if words else ""
        raise log.OptionError(f"completion: choose one of {', '.join(SHELLS)}{got}")
    log.say(script(words[0], list(COMMANDS)).rstrip())
    return 0
