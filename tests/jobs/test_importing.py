"""Heavy packages are imported without looking for garbage and with each of their files read once; nothing else is different."""

import subprocess
import sys

GARBAGE = """
import gc
from tunesmith.jobs.importing import quickly
frozen = gc.get_freeze_count()
with quickly():
    assert not gc.isenabled()
assert gc.isenabled() and gc.get_freeze_count() > frozen
try:
    with quickly():
        raise ValueError
except ValueError:
    assert gc.isenabled()
"""

SCANNED = """
import sys
from pathlib import Path
from contextlib import nullcontext
from tunesmith.jobs.importing import quickly
scanned = []
sys.addaudithook(lambda event, args: scanned.append(str(args[0])) if event == "os.scandir" else None)
before = list(sys.meta_path)
with {how}:
    import transformers
    import transformers.models
    import transformers.models.qwen2
assert {how!r} == "nullcontext()" or sys.meta_path[:len(before)] == before, sys.meta_path
models = Path(transformers.__file__).parent / "models"
print(scanned.count(str(models / "qwen2")))
for module in (transformers, transformers.models, transformers.models.qwen2):
    print(sorted((name, sorted(found)) for name, found in module._import_structure.items()))
print(transformers.Qwen2ForCausalLM, transformers.models.llama.LlamaConfig)
"""


def test_garbage_is_looked_for_again_after_the_import_and_after_an_error() -> None:
    _said(GARBAGE)


def test_transformers_reads_its_files_once_and_finds_in_them_what_it_always_finds() -> None:
    quick, plain = (_said(SCANNED.format(how=how)).split("\n", 1) for how in ("quickly()", "nullcontext()"))
    assert quick[1] == plain[1]
    assert int(quick[0]) == 1 < int(plain[0])


def _said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
