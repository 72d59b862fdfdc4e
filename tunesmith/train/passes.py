"""A micro-batch forward and back: as it is written, or as a GPU has recorded it, one launch in place of thousands.

A small model is done with each operation sooner than Python asks for the next, and the GPU waits.  What it was asked for in a
micro-batch of one size can be recorded, once, and be done again on the numbers of the next.  Knows a policy, an objective and a
device; knows no window and no optimizer.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tunesmith import shortage
from tunesmith.config.schema import Config
from tunesmith.data.batching.fixed import size_of
from tunesmith.data.sample import Batch
from tunesmith.log import RunError, note
from tunesmith.models.predict import Predictor
from tunesmith.train.objectives import Objective
from tunesmith.train.runtime import Runtime

MOST = 64
"""Sizes that are recorded.  Each takes a few MiB of a GPU's memory beside what all of them share."""

WAITS = "called a synchronizing CUDA operation"
"""What torch warns of where the host waits for the GPU, which no record can do."""


class Passes(Protocol):
    """Computes micro-batches."""

    keeps_gradients: bool
    """Whether gradients must stay where they are, and become zeros, when a step is done."""

    def __call__(self, batch: Batch, share: float, *, sync: bool = True) -> Tensor:
        """Add the gradients of `share` times the batch's cost, which is returned, shape [], without its graph.  `sync`: have
        gradients travel between processes."""
        ...


class Plain:
    """As it is written."""

    keeps_gradients = False

    def __init__(self, policy: nn.Module, objective: Objective, runtime: Runtime):
        self.policy, self.objective, self.runtime = policy, objective, runtime

    def __call__(self, batch: Batch, share: float, *, sync: bool = True) -> Tensor:
        return self.compute(self.runtime.to_device(batch), share, sync=sync)

    def compute(self, batch: Batch, share: float | Tensor, *, sync: bool = True) -> Tensor:
        """The same of a batch that is on the device."""
        with self.runtime.accumulate(self.policy, sync=sync):
            with self.runtime.autocast():
                cost = self.objective(self.policy, batch).total
            self.runtime.backward(cost * share)
        # Without its graph, whose nodes would lie scattered over the memory that the next micro-batch is laid into.
        return cost.detach()


class Recorder(Protocol):
    """What can do again what a device was asked for."""

    def apart(self) -> AbstractContextManager[None]:
        """Everything in this context may be recorded; what comes before and behind it waits its turn."""
        ...

    def waits(self) -> AbstractContextManager[list[str]]:
        """Collects where the host waits for the device."""
        ...

    def record(self, run: Callable[[], None]) -> Callable[[], object]:
        """What `run` asks of the device, to be called again and again; nothing is computed by this."""
        ...


@dataclass(slots=True)
class _Recorded:
    """A size's inputs and its cost, in memory that stays."""

    batch: Batch
    share: Tensor
    cost: Tensor
    again: Callable[[], object]


class Recorded:
    """Recorded where a size comes again: the first of its size is computed as written, the second recorded.  A policy that has
    the host wait for the device, as mixtures of experts do, is computed as written throughout, and a note says so."""

    keeps_gradients = True

    def __init__(self, plain: Plain, recorder: Recorder, device: torch.device):
        self._plain, self._recorder, self._device = plain, recorder, device
        self._seen: set[tuple[int, ...]] = set()
        self._known: dict[tuple[int, ...], _Recorded] = {}
        self._able = True

    def __call__(self, batch: Batch, share: float, *, sync: bool = True) -> Tensor:
        size = size_of(batch)
        with self._recorder.apart():
            known = self._known.get(size)
            if known is None and (size not in self._seen or not self._able or len(self._known) == MOST):
                return self._first(size, batch, share)
            if known is None:
                known = self._known[size] = self._record(batch, share)
            for held, given in zip(_tensors(known.batch), _tensors(batch), strict=True):
                held.copy_(given, non_blocking=True)
            known.share.fill_(share)
            known.again()
            return known.cost.clone()  # before the next one of this size writes there

    def _first(self, size: tuple[int, ...], batch: Batch, share: float) -> Tensor:
        if not self._able or size in self._seen:
            return self._plain(batch, share)
        self._seen.add(size)
        given = self._plain.runtime.to_device(batch)
        with self._recorder.waits() as found:
            cost = self._plain.compute(given, share)
        if found:
            self._able = False
            note("cuda_graphs", f"left out: this model has the host wait for the GPU ({found[0]})")
        return cost

    def _record(self, batch: Batch, share: float) -> _Recorded:
        held = batch.map(lambda tensor: tensor.to(self._device, copy=True))
        made = _Recorded(held, torch.tensor(share, dtype=torch.float32, device=self._device), torch.empty(0), _nothing)

        def run() -> None:
            made.cost = self._plain.compute(held, made.share)

        try:
            made.again = self._recorder.record(run)
        except Exception as problem:
            if shortage.found(problem) is not None:
                raise
            reason = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise RunError(
                f"cuda_graphs: a step of this model can't be recorded ({reason}); set it to false"
            ) from problem
        return made


class Graphs:
    """Records what is launched on a GPU, as CUDA graphs that share their memory."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """On a stream of its own: nothing may be recorded on the one that all begin with."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        """By torch's own watch over what makes the host wait."""
        before, found = torch.cuda.get_sync_debug_mode(), list[str]()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode(before)
        for each in heard:
            if WAITS in str(each.message):
                found.append(f"{each.filename}:{each.lineno}")

    def record(self, run: Callable[[], None]) -> Callable[[], object]:
        """What `run` launches.  Other threads, such as the one that builds batches, may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            run()
        return graph.replay


def settle(cfg: Config, policy: Predictor, runtime: Runtime) -> Recorder | None:
    """What records micro-batches, with `cuda_graphs: true`, where that can be done; else a note says why not.  The policy is
    then trained on batches of few sizes."""
    if not cfg.model.cuda_graphs:
        return None
    recorder = _recorder(runtime.device)
    if recorder is None:
        note("cuda_graphs", f"left out: there are none on a {runtime.device.type.upper()}")
    elif runtime.world_size > 1:
        note("cuda_graphs", "left out: gradients travel between several processes")
    elif not policy.ragged:
        note("cuda_graphs", "left out: rows are padded to the longest, in too many sizes")
    else:
        policy.few_sizes = True
        return recorder
    return None


def _recorder(device: torch.device) -> Recorder | None:
    return Graphs(device) if device.type == "cuda" else None


def _tensors(batch: Batch) -> list[Tensor]:
    """A batch's tensors, in the order in which it maps them."""
    found: list[Tensor] = []
    batch.map(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def _nothing() -> None:
    """Before anything is recorded."""
