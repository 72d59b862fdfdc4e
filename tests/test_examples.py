"""Every example is right as it stands: it loads, has data, and says nothing that a reader would have to wonder about."""

from pathlib import Path

import pytest
from surroundings import REPOSITORY

from tunesmith.config.load import load
from tunesmith.data.reading.sources import find_datasets

EXAMPLES = REPOSITORY / "examples"
FILES = [*sorted(EXAMPLES.rglob("*.yaml")), *sorted(EXAMPLES.glob("*.txt"))]
OF_OTHERS = ("backslashes", "seconds are")
"""What is noted of the pasted command: it is printed here as it is found elsewhere."""


def command_of(path: Path) -> str:
    return "export" if path.name.startswith("merge") else "train"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_loads_and_finds_its_data(path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(REPOSITORY)
    loaded = load([str(path), "--model_name_or_path", "m"], command_of(path))
    said = [line for line in capsys.readouterr().err.splitlines() if not any(words in line for words in OF_OTHERS)]
    assert not said
    data = loaded.config.data
    if command_of(path) == "train":
        assert find_datasets([*data.dataset, *data.eval_dataset], data.dataset_dir, [path.parent])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_is_on_the_list(path: Path) -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"]({path.relative_to(EXAMPLES).parts[0]})" in page
