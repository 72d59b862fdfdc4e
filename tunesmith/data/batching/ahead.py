"""Items built by a thread before they are asked for.  Knows threads; knows not what an item is.

While a step computes, the interpreter's lock is free most of the time, so that a thread is enough to have the next step's
batches ready.  Who builds changes nothing: the items come in their order, and what building raises is raised where the
item would have come.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing comes any more, for this reason or because the source has ended."""

    problem: BaseException | None


class Ahead(Generic[Item]):
    """`with Ahead(source, 1) as items:` iterates over `source`, of which so many items are built ahead of the one in use,
    and never more; with a count of 0, no thread builds anything.  Leaving the block waits for the item in the making, if any, and ends the thread."""

    def __init__(self, source: Iterator[Item], count: int):
        self._source, self._count = source, count
        self._ready: SimpleQueue[Item | _End] = SimpleQueue()
        self._room = threading.Semaphore(count)
        self._left = False
        self._thread = threading.Thread(target=self._build, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        if self._count:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._count:
            self._left = True
            self._room.release()
            self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        return self._taken() if self._count else self._source

    def _taken(self) -> Iterator[Item]:
        while True:
            item = self._ready.get()
            if isinstance(item, _End):
                if item.problem is not None:
                    raise item.problem
                return
            self._room.release()  # this one is in use now, so that the next can be built
            yield item

    def _build(self) -> None:
        problem = None
        try:
            while self._room.acquire() and not self._left:
                self._ready.put(next(self._source))
        except StopIteration:
            pass
        except BaseException as raised:  # whatever it is, it belongs to whoever asks for the item
            problem = raised
        self._ready.put(_End(problem))
