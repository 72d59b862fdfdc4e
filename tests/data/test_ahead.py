"""A thread builds so many items ahead and no more; order, errors and the end are as without it."""

import threading
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.batching.ahead import Ahead


class Counted:
    """0, 1, 2, ...: `made` says how many, and `wait_for(n)` waits until it is that many."""

    def __init__(self, end: int, problem: Exception | None = None):
        self.end, self.problem, self.made = end, problem, 0
        self.threads = set[str]()
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[int]:
        for number in range(self.end):
            with self._changed:
                self.threads.add(threading.current_thread().name)
                self.made += 1
                self._changed.notify_all()
            yield number
        if self.problem is not None:
            raise self.problem

    def wait_for(self, made: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.made >= made, timeout=60)


@given(st.integers(0, 12), st.integers(0, 4))
def test_items_come_once_and_in_order(end: int, count: int) -> None:
    with Ahead(iter(Counted(end)), count) as items:
        assert list(items) == list(range(end))


@pytest.mark.parametrize("count", [1, 3])
def test_so_many_are_built_ahead_of_the_one_in_use_and_no_more(count: int) -> None:
    source = Counted(100)
    with Ahead(iter(source), count) as items:
        for number in islice(items, 5):
            source.wait_for(number + 1 + count)
            assert source.made == number + 1 + count
    assert source.made <= 5 + count


def test_without_any_ahead_nothing_is_built_before_it_is_asked_for() -> None:
    source = Counted(3)
    with Ahead(iter(source), 0) as items:
        for number in items:
            assert source.made == number + 1
    assert source.threads == {threading.main_thread().name}


def test_an_error_comes_where_its_item_would_have_come() -> None:
    found = []
    with pytest.raises(ValueError, match="row 3 is broken"), Ahead(iter(Counted(3, ValueError("row 3 is broken"))), 2) as items:  # fmt: skip
        for number in items:
            found.append(number)
    assert found == [0, 1, 2]


def test_leaving_early_ends_the_thread() -> None:
    source = Counted(10**9)
    with pytest.raises(KeyError), Ahead(iter(source), 2) as items:
        next(iter(items))
        raise KeyError
    assert "ahead" in source.threads
    assert "ahead" not in {thread.name for thread in threading.enumerate()}
