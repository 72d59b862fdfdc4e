"""Every example YAML is right: it loads, and says nothing that a reader would have to wonder about."""

from pathlib import Path

import pytest

from tunesmith.config.load import load

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_loads(path, capsys):
    result = load([str(path), "--model_name_or_path", "m"], "train")
    assert result.config.data.dataset
    assert "warning" not in capsys.readouterr().err
