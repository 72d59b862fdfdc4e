"""Importing the trainer goes without looking for garbage; afterwards Python looks for it again, whatever happened."""

import subprocess
import sys

IMPORTING = """
import gc
from tunesmith.jobs.start import _nothing_is_garbage
frozen = gc.get_freeze_count()
with _nothing_is_garbage():
    assert not gc.isenabled()
assert gc.isenabled() and gc.get_freeze_count() > frozen
try:
    with _nothing_is_garbage():
        raise ValueError
except ValueError:
    assert gc.isenabled()
"""


def test_garbage_is_looked_for_again_after_the_import_and_after_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
