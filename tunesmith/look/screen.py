"""Rows and totals on a terminal in colours, or as plain lines with marks.  Knows segments; knows no data.

On a terminal a colour is a speaker, reversed is trained, and every second token is underlined.  Elsewhere each segment is
a line that begins with its speaker, behind `+` when it is trained.  A line's end is shown as the mark of the return key.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tunesmith.data.telling.inspect import Speaker
from tunesmith.log import is_speaker, say
from tunesmith.look.tokens import Segment, ShownToken

if TYPE_CHECKING:
    from rich.text import Text

COLOURS: dict[Speaker, str] = {
    "template": "bright_black", "system": "magenta", "user": "cyan", "assistant": "green", "function": "yellow",
    "observation": "blue", "text": "green",
}  # fmt: skip

LINE_END, TAB = "↵", "⇥"
MOST_TOKENS = 160
"""Tokens of a segment that are shown of a row that was not asked for."""


def visible(text: str) -> str:
    """Text in one line: ends of lines and tabs as marks, what cannot be printed as an escape."""
    marked = text.replace("\n", LINE_END).replace("\t", TAB)
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in marked)


def show(titled: Iterable[tuple[str, Sequence[Segment]]], *, ids: bool, whole: bool) -> None:
    """Show samples under their titles.  `ids`: each token's id behind it; `whole`: however long they are."""
    if is_speaker() and sys.stdout.isatty():
        _show_in_colours(titled, ids, whole)
        return
    for title, segments in titled:
        say(title)
        for segment in segments:
            for line in _plain_lines(segment, ids, whole):
                say(line)


def _plain_lines(segment: Segment, ids: bool, whole: bool) -> Iterable[str]:
    if segment.cut_before:
        yield f"  ... {segment.cut_before:,} tokens are cut away here"
    if segment.tokens:
        parts, left_out = _shortened(segment.tokens, whole)
        text = f" [... {left_out:,} more tokens ...] ".join(
            "".join(visible(token.text) + (f"[{token.id}]" if ids else "") for token in part) for part in parts
        )
        weight = "" if segment.weight == 1 else f"({segment.training}) "
        yield f"  {'+' if segment.trained else ' '} {segment.speaker:11} {weight}{text}"


def _shortened(tokens: Sequence[ShownToken], whole: bool) -> tuple[list[Sequence[ShownToken]], int]:
    """A segment's tokens, without the middle of a long one; and how many are left out."""
    if whole or len(tokens) <= MOST_TOKENS:
        return [tokens], 0
    half = MOST_TOKENS // 2
    return [tokens[:half], tokens[-half:]], len(tokens) - 2 * half


def _show_in_colours(titled: Iterable[tuple[str, Sequence[Segment]]], ids: bool, whole: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    legend = Text("colours: ")
    for speaker, colour in COLOURS.items():
        legend.append(speaker, colour).append("  ")
    console.print(legend.append("reversed is trained", "reverse"))
    for title, segments in titled:
        line = Text()
        for segment in segments:
            _colour(line, segment, ids, whole)
        console.print()
        console.print(Text(title, "bold"))
        console.print(line)


def _colour(line: "Text", segment: Segment, ids: bool, whole: bool) -> None:
    """Append a segment in its speaker's colour."""
    if segment.cut_before:
        line.append(f"[... {segment.cut_before:,} tokens are cut away here ...]", "bold red")
    style = COLOURS[segment.speaker] + (" reverse" if segment.trained else "")
    if segment.weight != 1:
        line.append(f"[{segment.training}]", "bold")
    parts, left_out = _shortened(segment.tokens, whole)
    for number, part in enumerate(parts):
        if number:
            line.append(f"[... {left_out:,} more tokens ...]", "bold")
        for place, token in enumerate(part):
            text = "\n".join(map(visible, token.text.replace("\n", f"{LINE_END}\n").split("\n")))
            line.append(text, style + (" underline" if place % 2 and token.id is not None else ""))
            if ids:
                line.append(f"[{token.id}]", "bright_black")
