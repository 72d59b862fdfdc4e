"""What `lora_target` means for a model: groups, names or a regular expression -> modules.  Knows no peft."""

import re
from collections.abc import Sequence

from transformers import PreTrainedModel

from tunesmith import catalog
from tunesmith.log import OptionError
from tunesmith.models import structure

PLAIN = re.compile(r"[\w.-]+")
GROUPS = {
    "all": structure.linear_names,
    "attention": structure.attention_names,
    "feedforward": structure.feedforward_names,
}


def resolve(model: PreTrainedModel, written: Sequence[str]) -> list[str]:
    """The modules that get LoRA, as the shortest endings of their names that mean no other module.

    An entry is a group, or a module's name or its last parts; entries that are no plain names are one regular expression
    for whole names.  Raises OptionError, listing what there is, for one that matches nothing.
    """
    if not written:
        raise OptionError("lora_target: empty; `all` means all linear layers but the head")
    everything = [name for name, _ in model.named_modules()]
    if all(PLAIN.fullmatch(entry) for entry in written):
        wanted = {name for entry in written for name in _named(model, entry)}
    else:
        wanted = set(_matching(model, ",".join(written)))
    return structure.shorten(wanted, everything)


def check_names(model: PreTrainedModel, names: Sequence[str], option: str) -> list[str]:
    """`names`, once each is, or ends, the name of a module that has weights.  Raises OptionError, listing what there is."""
    owners = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    for name in names:
        if not structure.named_by([name], owners):
            _refuse(option, name, owners)
    return list(names)


def _named(model: PreTrainedModel, entry: str) -> list[str]:
    if entry in GROUPS:
        found = GROUPS[entry](model)
        if not found:
            _refuse("lora_target", entry, structure.adaptable_names(model))
        return found
    found = structure.named_by([entry], structure.adaptable_names(model))
    if not found:
        _refuse("lora_target", entry, structure.adaptable_names(model))
    return found


def _matching(model: PreTrainedModel, expression: str) -> list[str]:
    try:
        pattern = re.compile(expression)
    except re.error as fault:
        raise OptionError(f"lora_target: {expression!r} is no regular expression: {fault}") from None
    names = structure.adaptable_names(model)
    found = [name for name in names if pattern.fullmatch(name)]
    if not found:
        raise OptionError(f"lora_target: {expression!r} matches no module's whole name, such as {names[-1]}")
    return found


def _refuse(option: str, name: str, known: Sequence[str]) -> None:
    short = structure.endings(known)
    groups = f"; groups: {', '.join(GROUPS)}" if option == "lora_target" else ""
    hint = catalog.did_you_mean(name, [*short, *GROUPS] if groups else short)
    raise OptionError(f"{option}: no module is named '{name}'{hint}; there are {', '.join(short)}{groups}")
