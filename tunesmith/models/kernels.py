"""Torch's own kernels replaced in this process, for as long as a run wants it.  Knows torch's dispatcher; knows no product."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Kernel = Callable[..., Any]


class Replaced:
    """Operators on the CPU whose kernels are other ones while they are `in_use`."""

    def __init__(self, made: Mapping[str, Callable[[Kernel], Kernel]]) -> None:
        """`made`: operator -> what makes its kernel, of the one that is there before, which serves whatever is not for it."""
        self._made = made
        self._kept: torch.library.Library | None = None

    @property
    def in_use(self) -> bool:
        return self._kept is not None

    def use(self, wanted: bool) -> None:
        """Use them here in this process from now on, or leave all to torch."""
        if self._kept is not None and not wanted:
            self._kept._destroy()
            self._kept = None
        if self._kept is None and wanted:
            self._kept = torch.library.Library("aten", "IMPL")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a kernel is replaced
                for name, make in self._made.items():
                    kernel = torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed
                    self._kept.impl(name, make(kernel), "CPU", with_keyset=True)

    @contextmanager
    def while_in_use(self, wanted: bool = True) -> Iterator[None]:
        """Use them, or do not, and leave them as they were."""
        before = self.in_use
        self.use(wanted)
        try:
            yield
        finally:
            self.use(before)
