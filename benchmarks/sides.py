"""How both sides are started: their commands, their environment, the log they write.  Knows no option and no model."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import processes
from processes import THREADS, Cost, Lines, flags
from reference import REPOSITORY, install_reference

OURS = [sys.executable, "-m", "tunesmith"]


@dataclass(frozen=True)
class Run:
    """A whole process that trained.  `logged`: seconds from its start to each row of its log."""

    folder: Path
    cost: Cost
    logged: list[float]

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.rows() if "loss" in row]

    def rows(self) -> list[dict[str, float]]:
        """Its log."""
        lines = (self.folder / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def said(self) -> str:
        """What it wrote to the screen."""
        return self.folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")

    def results(self, name: str) -> dict[str, float]:
        """The values of `NAME_results.json`."""
        found: dict[str, float] = json.loads((self.folder / f"{name}_results.json").read_text(encoding="utf-8"))
        return found


def theirs() -> list[str]:
    """The reference's command, installed if it is not there."""
    return [str(install_reference() / "bin" / "llamafactory-cli")]


def train(side: list[str], options: Mapping[str, object], output: Path, more: list[str] | None = None) -> Run:
    """Train, or whatever else the options ask of `train`, as a whole process whose caches are beside `output`."""
    look = Lines(output / "trainer_log.jsonl")
    words = [*side, "train", *flags({**options, "output_dir": output}), *(more or [])]
    cost = processes.run(words, output.with_suffix(".log"), environment(output.parent), look)
    return Run(output, cost, look.at)


def environment(work: Path) -> dict[str, str]:
    """No network, as many threads on both sides, what is prepared kept in `work`."""
    return {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": THREADS,
        "PYTHONPATH": str(REPOSITORY),
        "TUNESMITH_CACHE": str(work / "cache"),
        "HF_DATASETS_CACHE": str(work / "cache"),
    }
