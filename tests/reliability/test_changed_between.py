"""A run goes on only with what it began with: other weights, another template, another data file are refused by name, unless
`resume_anyway` is set."""

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exact import Run, stopped
from safetensors.torch import load_file, save_file

from tunesmith.log import OptionError

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.fixture
def begun(run: Run, tiny_model: Path, talks: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a run with its own copies of everything, killed behind step 3 of 6; it saved step 2."""
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(talks, tmp_path / "data")
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    own = {
        "model_name_or_path": tmp_path / "model", "dataset_dir": tmp_path / "data", "template": f"jinja:{tmp_path / 'mine.jinja'}",
        "save_steps": 2,
    }  # fmt: skip
    with stopped(3, kill=True):
        run("run", code=None, **own)
    return own


def weights(own: dict[str, Any]) -> None:
    """One number of the model is another."""
    file = own["model_name_or_path"] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] += 0.25
    save_file(tensors, file, {"format": "pt"})


def template(own: dict[str, Any]) -> None:
    """One word of the template is another."""
    Path(own["template"].removeprefix("jinja:")).write_text(
        TEMPLATE.replace("': '", "' says: '").replace("'assistant: '", "'assistant says: '")
    )


def data(own: dict[str, Any]) -> None:
    """One letter of the data is another."""
    file = own["dataset_dir"] / "talk.json"
    rows = json.loads(file.read_text())
    rows[7]["output"] += "s"
    file.write_text(json.dumps(rows))


def columns(own: dict[str, Any]) -> None:
    """The data's file is the same, and is read otherwise."""
    file = own["dataset_dir"] / "dataset_info.json"
    entries = json.loads(file.read_text())
    entries["talk"]["columns"] = {"prompt": "output", "response": "instruction"}
    file.write_text(json.dumps(entries))


def everything(own: dict[str, Any]) -> None:
    """All of these at once."""
    for change in (weights, template, data):
        change(own)


CHANGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (weights, "the model's weights are not those that the run began with"),
    (template, "the data is not what the run began with (chat format)"),
    (data, "the data is not what the run began with (data of talk)"),
    (columns, "the data is not what the run began with (columns of talk)"),
    (everything, "(data of talk, chat format); the model's weights are not those"),
]


def refusal(run: Run, own: dict[str, Any]) -> str:
    """Why the run does not go on."""
    told = ""
    try:
        run("run", **own)
    except OptionError as problem:
        told = str(problem)
    gc.collect()  # as the system does with a process that is gone: its lock is free
    return told


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_run_that_began_with_something_else_is_refused_with_what_differs(
    run: Run, begun: dict[str, Any], change: Callable[[dict[str, Any]], None], told: str, capsys: pytest.CaptureFixture
) -> None:
    change(begun)
    refused = refusal(run, begun)
    assert told in refused and "checkpoint-2: " in refused and "resume_anyway: true" in refused
    capsys.readouterr()
    with stopped(5, kill=True):
        run("run", code=None, **begun | {"resume_anyway": True})
    said = capsys.readouterr().err
    assert "warning: resume_anyway: going on although" in said and told in said
    run("run", **begun)  # what was accepted is what the run has now


def test_a_run_that_nothing_was_changed_for_goes_on(run: Run, begun: dict[str, Any]) -> None:
    for file in (begun["model_name_or_path"] / "model.safetensors", begun["dataset_dir"] / "talk.json"):
        file.write_bytes(file.read_bytes())  # another time, the same bytes
    run("run", **begun)


def test_other_options_are_all_told_at_once(run: Run, begun: dict[str, Any]) -> None:
    refused = refusal(run, begun | {"learning_rate": 2e-2, "lora_rank": 4, "seed": 7})
    for text in (
        "learning_rate was 0.01, is 0.02",
        "lora_rank was 8, is 4",
        "seed was 42, is 7",
        "resume_anyway: true",
    ):
        assert text in refused
