"""How many bytes of tensors are alive, now and at the most, while something is computed.  Knows storages; knows no model.

It sees what operations give back, on any device; what a kernel takes for itself and returns before it ends is not seen.
"""

import weakref
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Live(TorchDispatchMode):
    """Counts storages that are made while it is entered, forward and backward; those that were there before count nothing,
    however many views of them are made.  `now` and `peak` are in bytes, `peak` since it was last set to `now`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = set[int]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for value in tree_iter((args, kwargs)):
            if isinstance(value, Tensor):
                self._meet(value.untyped_storage(), new=False)
        given = func(*args, **kwargs)
        for value in tree_iter(given):
            if isinstance(value, Tensor):
                self._meet(value.untyped_storage(), new=True)
        self.peak = max(self.peak, self.now)
        return given

    def _meet(self, storage: UntypedStorage, *, new: bool) -> None:
        key = storage._cdata
        if key not in self._known:
            size = storage.nbytes() if new else 0
            self._known.add(key)
            self.now += size
            weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)  # another storage may come to lie there
        self.now -= size
