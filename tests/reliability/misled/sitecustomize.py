"""Has one process of a run fail in one function, as the variable MISLED says: `RANK:MODULE:FUNCTION:CALL:HOW`.  Knows no promise.

Python runs this in every process that has this folder on its path, which changes the module when it is imported; `mislead`
changes one that is there already.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import ModuleType

TO_LAUNCHER = {"int": signal.SIGINT, "term": signal.SIGTERM}
TO_ITSELF = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term itself": signal.SIGTERM}
"""How -> the signal, and who gets it."""


def misled(how: str) -> None:
    """What happens to the process."""
    if how == "raise":
        raise ValueError("this rank was told to fail")
    if how == "memory":
        raise MemoryError("this rank was told to ask for too much")
    if how == "loop":
        while True:
            time.sleep(0.01)
    if how in TO_LAUNCHER:
        os.kill(int(os.environ["TUNESMITH_PARENT"]), TO_LAUNCHER[how])
    else:
        os.kill(os.getpid(), TO_ITSELF[how])


def change(module: ModuleType, function: str, call: int, how: str) -> None:
    """Have a module's function fail when it is called for the `call`th time."""
    before, calls = vars(module)[function], 0

    @functools.wraps(before)  # so that it is found by its name, as other processes do
    def changed(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            misled(how)
        return before(*given, **named)

    vars(module)[function] = changed


class Misleading(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module as always, and changes one of its functions."""

    def __init__(self, module: str, function: str, call: int, how: str):
        self.module, self.function, self.call, self.how = module, function, call, how
        self.loader: importlib.abc.Loader | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert self.loader is not None
        self.loader.exec_module(module)
        change(module, self.function, self.call, self.how)


def mislead() -> None:
    """Do what MISLED says, in the process that it says."""
    rank, module, function, call, how = (os.environ.get("MISLED") or "::::").split(":")
    if not rank or os.environ.get("RANK") != rank:
        return
    if module in sys.modules:
        change(sys.modules[module], function, int(call), how)
    else:
        sys.meta_path.insert(0, Misleading(module, function, int(call), how))


mislead()
