"""The types that travel from data to the loop."""

import subprocess
import sys


def test_worker_processes_import_neither_torch_nor_transformers() -> None:
    code = "import sys, tunesmith.data.keeping.prepare; assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
