"""The hub finds who stands still or is gone, and who may tell why a run ends, whatever comes first."""

import json
import signal
import socket
from collections.abc import Iterator

import pytest

from tunesmith.jobs.hub import SETTLING_SECONDS, End, Hub
from tunesmith.jobs.watch import is_consequence

LIMIT = 100.0


class Worker:
    """A process as the hub sees it."""

    def __init__(self, hub: Hub, rank: int, token: str | None = None):
        self.hub = hub
        self.line = socket.create_connection(("127.0.0.1", hub.port), timeout=30)
        self.say(token=token or hub.token, rank=rank, host="elsewhere", pid=40 + rank)

    def say(self, **what: object) -> None:
        self.line.sendall(json.dumps(what).encode() + b"\n")
        serve(self.hub)

    def stands(self, step: int, meetings: int, waited: float, *stack: str) -> None:
        self.say(step=step, meetings=meetings, waited=waited, stack=stack)

    def ordered(self) -> dict[str, object]:
        return json.loads(self.line.makefile().readline())


def serve(hub: Hub) -> None:
    """Hear all that has been said; the hub's clock stands still unless `pass_time` moves it."""
    now = hub._clock
    for _ in range(4):
        hub.serve(0.02)
    hub._clock = now


def pass_time(hub: Hub, seconds: float) -> None:
    hub._clock += seconds


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(3, LIMIT, is_parent=True) as made:
        yield made


@pytest.fixture
def workers(hub: Hub) -> list[Worker]:
    return [Worker(hub, rank) for rank in range(3)]


def text(end: End | None) -> str:
    assert end is not None and end.text is not None
    return end.text


def test_who_is_waited_for_stands_still(hub: Hub, workers: list[Worker]) -> None:
    workers[0].stands(7, 15, LIMIT)
    workers[1].stands(7, 14, 0.0, "outer.py:1 in a", "inner.py:2 in b")
    workers[2].stands(7, 15, LIMIT - 50)
    end = hub.verdict()
    assert text(end) == (
        "rank 1 (process 41 on elsewhere) stands still: others have waited for it for 100 s (ddp_timeout); its last step was 7\n"
        "It was last seen here:\n  outer.py:1 in a\n  inner.py:2 in b"
    )
    assert end is not None and end.code == 1 and end.at_once
    hub.end(end)
    assert all(worker.ordered() == {"end": 1, "at_once": True, "text": end.text} for worker in workers)


def test_between_two_marks_the_stack_tells_who_works(hub: Hub, workers: list[Worker]) -> None:
    workers[0].stands(3, 9, LIMIT, "torch/nn/parallel/distributed.py:9 in forward")
    workers[1].stands(3, 9, LIMIT, "torch/autograd/graph.py:9 in _engine_run_backward")
    workers[2].stands(3, 9, LIMIT, "mine.py:9 in forward")
    assert text(hub.verdict()).startswith("rank 2 ")


def test_when_nobody_can_be_named_all_are(hub: Hub, workers: list[Worker]) -> None:
    for worker in workers:
        worker.stands(3, 9, LIMIT, "torch/nn/parallel/distributed.py:9 in forward")
    assert [line.split(" (")[0] for line in text(hub.verdict()).splitlines() if "rank" in line] == [
        "rank 0",
        "rank 1",
        "rank 2",
    ]


def test_who_does_not_answer_is_told_before_those_who_wait_for_it(hub: Hub, workers: list[Worker]) -> None:
    workers[1].stands(4, 9, 1.0, "torch/autograd/graph.py:9 in backward")
    pass_time(hub, LIMIT - 1)
    for rank in (0, 2):
        workers[rank].stands(4, 9, LIMIT)
    told = text(hub.verdict())
    assert told.startswith(
        "rank 1 (process 41 on elsewhere) does not answer for 99 s; it is stopped or out of reach; its last step was 4\n"
    )
    assert "rank 0" not in told


def test_who_never_came_is_named(hub: Hub) -> None:
    came = [Worker(hub, rank) for rank in (0, 2)]
    for worker in came:
        worker.stands(0, 1, LIMIT)
    assert text(hub.verdict()) == "rank 1 did not come to the others within 100 s (ddp_timeout)"


def test_work_and_waits_that_end_are_no_standstill(hub: Hub, workers: list[Worker]) -> None:
    for worker in workers:
        worker.stands(4, 9, LIMIT / 2)
    pass_time(hub, LIMIT / 2)
    assert hub.verdict() is None


def test_a_kill_is_told_with_its_signal_and_not_as_others_see_it(hub: Hub, workers: list[Worker]) -> None:
    workers[0].say(error="internal error: RuntimeError: [gloo] closed", is_consequence=True, code=1)
    assert hub.verdict() is None  # more may come
    workers[1].stands(5, 9, 0.0)
    workers[1].line.close()
    serve(hub)
    hub.ended(1, -signal.SIGKILL)
    assert hub.verdict() is None
    pass_time(hub, SETTLING_SECONDS)
    end = hub.verdict()
    assert (
        text(end)
        == "rank 1 (process 41 on elsewhere) was ended by SIGKILL, most likely for its memory; its last step was 5"
    )
    assert end is not None and end.code == 137 and not end.at_once


def test_the_first_cause_is_told_and_by_whom(hub: Hub, workers: list[Worker]) -> None:
    workers[0].say(error="internal error: RuntimeError: NCCL error", is_consequence=True, code=1)
    workers[2].say(error="out of memory: of it", is_consequence=False, code=4)
    pass_time(hub, SETTLING_SECONDS)
    assert hub.verdict() == End("rank 2: out of memory: of it", 4)


def test_what_all_find_is_told_as_if_there_were_one(hub: Hub, workers: list[Worker]) -> None:
    for worker in reversed(workers):
        worker.say(error="talk.json row 3: no", is_consequence=False, code=3)
    assert hub.verdict() == End("talk.json row 3: no", 3)


def test_a_lost_connection_is_told_only_when_there_is_nothing_better(hub: Hub, workers: list[Worker]) -> None:
    workers[1].say(error="internal error: RuntimeError: gloo", is_consequence=True, code=1)
    pass_time(hub, SETTLING_SECONDS)
    assert text(hub.verdict()) == "rank 1 has lost the other processes: internal error: RuntimeError: gloo"


def test_who_left_after_a_signal_ends_the_run_without_a_word(hub: Hub, workers: list[Worker]) -> None:
    workers[1].say(code=143)
    workers[0].say(error="internal error: RuntimeError: gloo", is_consequence=True, code=1)
    pass_time(hub, SETTLING_SECONDS)
    assert hub.verdict() == End(None, 143)


def test_a_run_that_is_through_has_no_verdict(hub: Hub, workers: list[Worker]) -> None:
    for rank, worker in enumerate(workers):
        worker.say(code=0)
        worker.line.close()
        serve(hub)
        hub.ended(rank, 0)
    assert hub.verdict() is None and hub.is_empty


def test_strangers_are_not_heard(hub: Hub) -> None:
    stranger = Worker(hub, 1, token="guessed")
    assert hub.ranks[1].line is None and stranger.line.recv(1) == b""


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            "internal error: RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer",
            True,
        ),
        ("internal error: DistBackendError: NCCL communicator was aborted", True),
        ("internal error: ValueError: a glossary", False),
        ("out of memory: CUDA out of memory", False),
    ],
)
def test_what_only_tells_of_others_is_known(told: str, expected: bool) -> None:
    assert is_consequence(told) is expected
