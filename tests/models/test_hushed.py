"""Libraries that are installed beside this program and not asked for say nothing of what they lack."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tunesmith.train.run", "tunesmith.train.doctor", "tunesmith.generate.chat"])
def test_importing_says_nothing(module: str, repo: Path) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {module}"], cwd=repo, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
