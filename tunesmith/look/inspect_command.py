"""`tunesmith inspect`: what a model will really see of its data, before anything is trained.  Knows words and order; the
rest of the room knows how."""

import json
from collections.abc import Mapping
from pathlib import Path

from tunesmith import log
from tunesmith.config import own_words
from tunesmith.config.load import Loaded, load
from tunesmith.log import OptionError, say

ROWS_ON_SCREEN, ROWS_ON_PAGE = 3, 20
CUT_ON_SCREEN, CUT_ON_PAGE = 1, 5
LIMIT_PASSED = REFUSED = 3
"""Exit codes."""


def inspect_command(arguments: list[str]) -> int:
    """Show rows and totals, or what a template writes; returns the exit code: 3 when a limit is passed or a template
    refuses a conversation."""
    own, others = own_words.take("inspect", arguments)
    if "conversations" in own:
        return _inspect_template(own, others)
    if "spans" in own:
        raise OptionError("--spans: writes the conversations of a file; give --conversations FILE.json too")
    return _inspect_data(own, load(others, command="inspect"))


def _inspect_template(own: Mapping[str, str], others: list[str]) -> int:
    """Write conversations in a template, as JSON or to be read."""
    if wrong := [name for name in own if name not in ("conversations", "spans")]:
        raise OptionError(f"--{wrong[0]}: is about the data of a run; leave it out with --conversations")
    from tunesmith.look import screen
    from tunesmith.look.spans import written
    from tunesmith.look.tokens import segments_of_spans

    cases = written(load(others, command="spans"), Path(own["conversations"]).expanduser())
    if "spans" in own:
        say(json.dumps({case: each.as_json() for case, each in cases.items()}, ensure_ascii=False))
    else:
        segments = {case: segments_of_spans(each.spans, each.conversation) for case, each in cases.items()}
        screen.show(segments.items(), ids=False, whole=True)
    refused = [f"{case}: {each.refused}" for case, each in cases.items() if each.refused is not None]
    for reason in refused:
        log.error(reason)
    return REFUSED if refused else 0


def _inspect_data(own: Mapping[str, str], loaded: Loaded) -> int:
    """Show rows of a run's data and what it amounts to."""
    from tunesmith.look import limits, screen
    from tunesmith.look.dump import write_dump
    from tunesmith.look.outputs import output_file
    from tunesmith.look.page import write_page
    from tunesmith.look.plan import totals_of
    from tunesmith.look.rows import Rows, titled
    from tunesmith.train.inputs import read_inputs

    wanted = limits.parse(own.get("fail-if", ""))
    files = {word: output_file(word, own[word], loaded, may_exist=True) for word in ("html", "dump") if word in own}
    inputs = read_inputs(loaded)
    totals = totals_of(loaded, inputs)
    rows = Rows(loaded, inputs)
    if "row" in own:
        shown, cut = rows.named(own["row"]), []
    else:
        on_page = "html" in own
        shown = rows.first(ROWS_ON_PAGE if on_page else ROWS_ON_SCREEN)
        known = {row.seen.where for row in shown}
        cut = [row for row in rows.worst_cut(CUT_ON_PAGE if on_page else CUT_ON_SCREEN) if row.seen.where not in known]
    if "json" in own:
        found = {"rows": [row.as_dict() for row in [*shown, *cut]], "totals": totals.as_dict()}
        say(json.dumps(found, ensure_ascii=False))
    elif "html" not in own:
        screen.show(titled([*shown, *cut]), ids="ids" in own, whole="row" in own)
        say()
    if "json" not in own:
        for line in [*inputs.prepared.report.lines(), *totals.lines()]:
            say(line)
    if "html" in own:
        write_page(files["html"], shown, cut, inputs.prepared.report, totals)
    if "dump" in own:
        write_dump(files["dump"], inputs.prepared)
    passed = [text for limit in wanted if (text := limit.passed(totals))]
    for text in passed:
        log.error(text)
    return LIMIT_PASSED if passed else 0
