"""Rows and totals as one HTML page that loads nothing and runs nothing.  Knows segments and totals; knows no data."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from tunesmith.data.telling.report import Longest, Report, Tally
from tunesmith.data.telling.totals import Totals
from tunesmith.files import write_beside
from tunesmith.log import note
from tunesmith.look.rows import ShownRow
from tunesmith.look.screen import COLOURS, LINE_END, TAB
from tunesmith.look.tokens import Segment

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>What the model will see</title>
<style>
{style}</style>
</head>
<body>
<label class="switch"><input type="checkbox" id="ids"> show ids</label>
<h1>What the model will see</h1>
<p class="lead">{lead}</p>
"""

FOOT = """<footer>Written by <code>tunesmith inspect</code>. A token's id, place and speaker stand in its tooltip.</footer>
</body>
</html>
"""


def write_page(path: Path, shown: Sequence[ShownRow], cut: Sequence[ShownRow], report: Report, totals: Totals) -> None:
    """Write the page of some rows, some that were cut, and the totals; the file is whole or not there."""
    style = files("tunesmith.look").joinpath("page.css").read_text(encoding="utf-8")
    lead = f"{', '.join(escape(name) for name in report.read)}: {totals.rows_kept:,} rows, {totals.samples:,} samples"
    parts = [HEAD.format(style=style, lead=lead), _cards(totals), _lengths(totals), _losses(report)]
    parts += ["<h2>Rows</h2>", _legend(), *map(_row, shown)]
    if cut:
        parts += ["<h2>Rows that were cut</h2>", *map(_row, cut)]
    write_beside(path, "\n".join([*parts, FOOT]))
    note("html", f"{len(shown) + len(cut)} rows are on the page {path}")


def _cards(totals: Totals) -> str:
    """The most important numbers."""
    cards = [
        ("rows kept", f"{totals.rows_kept:,}", f"of {totals.rows_read:,} read"),
        ("dropped", f"{totals.dropped:,}", f"{totals.dropped / max(totals.rows_read, 1):.1%} of rows"),
        ("cut", f"{totals.cut:,}", f"to {totals.cutoff_len:,} tokens"),
        ("tokens", f"{totals.tokens:,}", f"the longest sample {totals.longest:,}"),
        ("trained", f"{totals.trained_fraction:.1%}", f"{totals.trained_tokens:,} tokens"),
        ("padding", f"{totals.padding:.1%}", "where rows are padded"),
        (
            "steps an epoch",
            f"{totals.steps_per_epoch:,}",
            f"{totals.rows_per_step:,.4g} rows each, {totals.steps:,} in all",
        ),
    ]
    if totals.rows_evaluated:
        cards.insert(1, ("to evaluate", f"{totals.rows_evaluated:,}", "rows held out"))
    shown = (f"<div><dt>{name}</dt><dd>{value} <small>{more}</small></dd></div>" for name, value, more in cards)
    return f'<dl class="cards">{"".join(shown)}</dl>'


def _lengths(totals: Totals) -> str:
    most = max((bin.samples for bin in totals.lengths), default=1)
    rows = (
        f'<tr><td class="number">{bin.range}</td><td class="number">{bin.samples:,}</td>'
        f'<td class="bar">{_bar(bin.samples / most)}</td></tr>'
        for bin in totals.lengths
    )
    return f"<h2>Tokens of a sample</h2><table>{''.join(rows)}</table>"


def _bar(share: float) -> str:
    return f'<i style="width:{100 * share:.1f}%"></i>' if share else ""


def _losses(report: Report) -> str:
    """Why rows were left out, cut or split, with the first of them."""
    tallies = report.tallies
    what: list[tuple[str, Tally | Longest]] = [
        (f"left out: {reason}", tally) for reason, tally in tallies.dropped.items()
    ]
    what += [(f"cut to {report.cutoff_len:,} tokens", tallies.cut), ("split into several samples", tallies.divided)]
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{tally.count:,}</td>'
        f"<td>{escape(', '.join(tally.rows))}{', ...' if tally.count > len(tally.rows) else ''}</td></tr>"
        for name, tally in what
        if tally.count
    )
    return f"<h2>What was lost</h2><table>{rows}</table>" if rows else ""


def _legend() -> str:
    names = "".join(f'<span class="{name}">{name}</span>' for name in COLOURS)
    return f'<p class="legend">{names}<span class="assistant"><b class="trained">trained</b></span></p>'


def _row(row: ShownRow) -> str:
    where = escape(row.seen.where)
    if not row.samples:
        return f'<article><h3>{where} <small class="bad">{escape(row.facts())}</small></h3></article>'
    return "\n".join(
        f"<article><h3>{where} <small>{escape(row.facts(sample))}</small></h3><pre>{_tokens(sample.segments)}</pre></article>"
        for sample in row.samples
    )


def _tokens(segments: Iterable[Segment]) -> str:
    parts, place = [], 0
    for segment in segments:
        if segment.cut_before:
            parts.append(f'<em class="cut">{segment.cut_before:,} tokens cut away</em>')
        trained = " trained" if segment.trained else ""
        tokens = []
        for token in segment.tokens:
            tip = f"id {token.id}, token {place}, {segment.speaker}{trained and f', {segment.training}'}"
            tokens.append(f'<b title="{tip}">{_text(token.text)}<sub>{token.id}</sub></b>')
            place += 1
        if tokens:
            parts.append(f'<span class="{segment.speaker}{trained}">{"".join(tokens)}</span>')
    return "".join(parts)


def _text(text: str) -> str:
    """Text with its line ends and tabs marked, and nothing in it that HTML would understand or not show."""
    shown = "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
    return escape(shown).replace("\n", f"<s>{LINE_END}</s>\n").replace("\t", f"<s>{TAB}</s>\t")
