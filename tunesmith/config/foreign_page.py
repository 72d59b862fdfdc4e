"""The page of names that other programs have and this one has not, or spells otherwise.  Reads the tables; knows no file."""

from tunesmith.config import compat, foreign

ABOUT = (
    "Options of LLaMA-Factory and Transformers that have no field of their own here. What has one is in "
    "[parameters.md](parameters.md); what differs besides is in [migrating.md](migrating.md)."
)

REFUSED = (
    "They would change the result and are not built yet. With the values that change nothing they are taken in silence."
)


def markdown() -> str:
    """The docs page, in the order of the alphabet."""
    read = {name: f"`{option}`" for name, option in compat.CANONICAL.items()}
    read |= {name: f"`{switch.option}: {_value(switch.on)}`, when true" for name, switch in compat.SWITCHES.items()}
    read |= {name: f"`{option}`, as a fraction of the run" for name, option in compat.RATIOS.items()}
    for command, names in compat.MEANT_BY.items():
        for name, option in names.items():
            read[name] = f"{read[name]}; for `{command}`: `{option}`"
    lines = ["# Names of other programs", "", ABOUT, "", "## Read as", "", "| written | read as |", "|---|---|"]
    lines += [f"| `{name}` | {read[name]} |" for name in sorted(read)]
    lines += [
        "",
        "## Without effect",
        "",
        "Each gets a warning line with the reason.",
        "",
        "| name | why |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {foreign.INERT[name]} |" for name in sorted(foreign.INERT)]
    lines += ["", "## Refused", "", REFUSED, "", "| name | changes nothing when | instead, or why |", "|---|---|---|"]
    for name in sorted(foreign.UNBUILT):
        values = ", ".join(f"`{_value(value)}`" for value in foreign.UNBUILT[name] if value not in (None, "", "no"))
        lines.append(f"| `{name}` | {values} | {foreign.INSTEAD.get(name, '')} |")
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
