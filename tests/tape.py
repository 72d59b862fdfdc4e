"""What a CUDA graph does, on a CPU: the operations of one pass, done again on the same tensors, without Python running again.

A tape keeps every operation that reaches torch's dispatcher with the very tensors that it took and gave; playing it does
them again, one after another, into the tensors that it gave.  What a graph can't hold, a value that Python read, is refused,
as CUDA refuses it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

aten = torch.ops.aten
READ = {aten._local_scalar_dense.default, aten.item.default, aten.nonzero.default}


class _Watching(TorchDispatchMode):
    """Tells `heard` of every operation before it is done, and `done` with what it gave."""

    def __init__(self, heard: Callable[[Any], None], done: Callable[..., None] = lambda *_: None):
        super().__init__()
        self.heard, self.done = heard, done

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.heard(func)
        given = func(*args, **(kwargs or {}))
        self.done(func, args, kwargs or {}, given)
        return given


def _refuse(func: Any) -> None:
    if func in READ:
        raise RuntimeError(f"{func}: operation not permitted when stream is capturing")


class Tape:
    """A Recorder.  `recorded`, `played`: how often."""

    def __init__(self) -> None:
        self.recorded = self.played = 0
        self.trained: list[Tensor] = []
        """Whose gradients recording must leave alone."""

    @contextmanager
    def apart(self) -> Iterator[None]:
        yield

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        heard: list[str] = []
        with _Watching(lambda func: heard.append(str(func)) if func in READ else None):
            yield heard

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Unlike a graph this computes too, so gradients are put back."""
        tape: list[Any] = []
        held = [each for each in self.trained if each.grad is not None]
        kept = [each.grad.clone() for each in held]
        with _Watching(_refuse, lambda *each: tape.append(each)):
            run()
        for each, before in zip(held, kept, strict=True):
            each.grad.copy_(before)
        self.recorded += 1

        @torch.no_grad()
        def play() -> None:
            self.played += 1
            for func, args, kwargs, given in tape:
                again = func(*args, **kwargs)
                for there, made in zip(tree_flatten(given)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(there, Tensor) and there.data_ptr() != made.data_ptr():
                        there.copy_(made)

        return play
