"""Prepared rows as JSON Lines: what the trainer is given, for other programs to read.  Knows samples; knows no text."""

import json
from pathlib import Path

from tunesmith.data.pipeline import Prepared
from tunesmith.files import open_beside
from tunesmith.log import note


def write_dump(path: Path, prepared: Prepared) -> None:
    """Write `input_ids` and `labels` of each row to train on, in the order of the data, of a packed row how many tokens
    each sample in it has (`parts`), and `weights` of tokens where they are not all 1; the file is whole or not there."""
    with open_beside(path) as file:
        for index in range(len(prepared.train)):
            sample = prepared.train[index]
            row = {"input_ids": sample.input_ids.tolist(), "labels": sample.labels.tolist()}
            if sample.parts:
                row["parts"] = list(sample.parts)
            if sample.weights is not None:
                row["weights"] = sample.weights.tolist()
            file.write(json.dumps(row).encode() + b"\n")
    evaluated = sum(len(each) for each in prepared.evals.values())
    more = f"; the {evaluated:,} to evaluate on are not in it" if evaluated else ""
    first = "" if prepared.stream is None else "the first "
    note("dump", f"{first}{len(prepared.train):,} rows to train on are in {path}{more}")
