"""Libraries that are installed beside this program and not asked for say nothing of what they lack."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_importing_says_nothing(repo: Path) -> None:
    code = "import tunesmith.train.run, tunesmith.train.doctor, tunesmith.generate.chat"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
