"""What is missing is told before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import clean_environment

SCRIPT = """
import sys
from tunesmith.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["dataset=tlak"], 2, "dataset_info.json; did you mean 'talk'?"),
        (["dataset=talk", "eval_dataset=nothing.json"], 2, "nothing.json"),
        (["dataset=talk", "model_name_or_path=./not_here"], 2, "model_name_or_path: there is no folder not_here"),
        (["dataset=talk", "adapter_name_or_path=./not_here"], 2, "adapter_name_or_path: there is no folder not_here"),
        (["dataset=talk", "template=qwne"], 2, "did you mean 'qwen'?"),
        (["dataset=talk", "report_to=wandb"], 5, "pip install 'tunesmith[wandb]'"),
    ],
)
def test_what_is_missing_is_told_before_torch_is_imported(
    tiny_model: Path, rows: Path, tmp_path: Path, words: list[str], code: int, line: str
) -> None:
    options = ["train", f"dataset_dir={rows}", f"output_dir={tmp_path / 'run'}"]
    if not any(word.startswith("model_name") for word in words):
        options.append(f"model_name_or_path={tiny_model}")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *options, *words],
        capture_output=True, encoding="utf-8", env=clean_environment(), cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
