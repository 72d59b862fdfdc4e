"""The types that travel from data to the loop."""

import subprocess
import sys

from tunesmith.data.sample import IGNORED
from tunesmith.losses import lm


def test_data_and_losses_ignore_the_same_label() -> None:
    assert IGNORED == lm.IGNORED


def test_worker_processes_import_neither_torch_nor_transformers() -> None:
    code = "import sys, tunesmith.data.prepare; assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
