"""How heavy packages are imported in the least time: without looking for garbage, without reading what was read before.

Imports none of them itself, and changes nothing of what they are.
"""

import gc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from types import ModuleType

from tunesmith.jobs.waiting import wait_quietly

SCANNER = "transformers.utils.import_utils"
"""The module of Transformers that looks through its own files for what they define."""

SCAN = "create_import_structure_from_path"


@contextmanager
def quickly() -> Iterator[None]:
    """Import without looking for garbage all the while, which takes a fifth of the time, nor later among what was
    imported; and have Transformers read its own files once.  Torch's threads will wait for one another as suits the machine.
    Changes nothing in a process that has imported torch before."""
    if "torch" in sys.modules:
        yield
        return
    wait_quietly()
    finder = _ReadOnce()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
        finder.leave()


class _ReadOnce(MetaPathFinder):
    """Has Transformers keep what it found in all folders of its models.  It reads their 1,600 files for its own names, and again
    for those of `transformers.models`, since it remembers 128 folders of 500: a fifth of a second."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, which remembers more; None for every other module."""
        if fullname != SCANNER:
            return None
        self.leave()
        spec = importlib.util.find_spec(fullname)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Remembering(spec.loader.name, spec.loader.path)
        return spec

    def leave(self) -> None:
        """Be asked no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _Remembering(importlib.machinery.SourceFileLoader):
    """Loads that module, and then lets its function remember every folder."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module.  A release whose function is another one, or gone, stays as it is."""
        super().exec_module(module)
        scan = vars(vars(module).get(SCAN, object)).get("__wrapped__")
        if scan is not None:
            remembered = cache(scan)
            vars(module)[SCAN] = lambda module_path: remembered(_folder(module_path))


def _folder(path: str | os.PathLike[str]) -> str:
    """What stands for a path: its folder, as text."""
    return os.fspath(path) if os.path.isdir(path) else os.path.dirname(path)
