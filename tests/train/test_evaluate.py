"""Evaluation sets are told by their names, together or each by itself, for prepared and streamed training alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Train = Callable[..., Path]


@pytest.fixture
def questions(rows: Path, tmp_path: Path) -> Path:
    """A dataset folder with `talk` to train on, and `sums` and `birds` to evaluate on."""
    talk = json.loads((rows / "talk.json").read_text())
    parts = {"talk": talk, "sums": talk[:5], "birds": [row | {"output": "seven small blue birds"} for row in talk[5:9]]}
    folder = tmp_path / "questions"
    folder.mkdir()
    for name, part in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(part))
    (folder / "dataset_info.json").write_text(json.dumps({name: {"file_name": f"{name}.json"} for name in parts}))
    return folder


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "eval_results.json").read_text())
    return found


@pytest.mark.parametrize("streaming", [False, True])
def test_each_dataset_has_a_loss_of_its_own(train: Train, questions: Path, streaming: bool) -> None:
    shared = {"dataset_dir": questions, "eval_dataset": "sums,birds", "max_steps": 2, "streaming": streaming}
    together = results(train("together", **shared))
    apart = results(train("apart", eval_on_each_dataset=True, **shared))
    assert "eval_loss" in together and "eval_loss" not in apart
    losses = [apart["eval_sums_loss"], apart["eval_birds_loss"]]
    assert min(losses) < together["eval_loss"] < max(losses)
    logged = [json.loads(line) for line in (train("logged", eval_steps=1, eval_on_each_dataset=True, **shared) / "trainer_log.jsonl").read_text().splitlines()]  # fmt: skip
    assert [row["current_steps"] for row in logged if "eval_birds_loss" in row] == [1, 2]


def test_rows_held_out_of_a_stream_are_evaluated(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("run", streaming=True, max_steps=3, val_size=4, eval_steps=1, buffer_size=6)
    assert results(run)["eval_loss"] > 0
    assert "rows kept     17 to train on, 4 to evaluate" in capsys.readouterr().out
