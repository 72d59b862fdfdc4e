"""Devices, processes, arithmetic and randomness of a run.  The only file that imports accelerate."""

import ctypes
import datetime
import hashlib
import json
import os
import platform
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import accelerate
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith.config.model import ModelConfig
from tunesmith.config.train import TrainConfig
from tunesmith.data.sample import Batch
from tunesmith.jobs import watch
from tunesmith.jobs.watch import HERE
from tunesmith.log import OptionError, warn
from tunesmith.losses import linear
from tunesmith.models import products
from tunesmith.models.precision import allow_tf32, resolve_compute_type
from tunesmith.train.stop import as_part, of_sum

MALLOC = {-3: 5 << 24, -1: (1 << 31) - 1, -2: 1 << 26}
"""glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD -> bytes.  Blocks above the first, such as gradients of a
vocabulary, do go back to the system: kept ones would be cut up by smaller ones, and the next would not fit anywhere."""

SECONDS_BEHIND = 60
"""How much later torch itself gives up: by then whoever stands still has been told by name."""

_store: dist.Store | None = None
"""Where processes learn where the hub is; it must live as long as this process, which may hold it for all."""


def be_watched(cfg: TrainConfig) -> None:
    """Under a launcher that is not ours: start a hub beside rank 0, and have each process report to it."""
    global _store
    if watch.is_joined() or int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return
    seconds = min(cfg.ddp_timeout, 10**9)
    _store, rank, count = next(dist.rendezvous("env://", timeout=datetime.timedelta(seconds=seconds)))
    name = f"tunesmith/hub/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    if rank == 0:
        everywhere = os.environ.get("LOCAL_WORLD_SIZE") != str(count)
        host = os.environ["MASTER_ADDR"] if everywhere else "127.0.0.1"
        _store.set(name, watch.open_hub(count, cfg.ddp_timeout, host, everywhere=everywhere, lang=cfg.lang))
    watch.join(_store.get(name).decode(), rank)


class Runtime:
    """One process's place among all processes of a run."""

    def __init__(self, cfg: TrainConfig, model: ModelConfig):
        """Join the process group when a launcher started several; settle on a device and its arithmetic."""
        on_cpu = model.device == "cpu" or (model.device == "auto" and not torch.cuda.is_available())
        if model.device == "cuda" and not torch.cuda.is_available():
            raise OptionError("device: cuda was asked for, and torch finds no GPU here")
        _leave_out_settings()
        seconds = min(cfg.ddp_timeout, 10**9) + SECONDS_BEHIND
        timeout = accelerate.InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=seconds))
        with warnings.catch_warnings(), HERE.meeting():
            # accelerate advises thread counts for several CPU processes; the launcher has set them.
            warnings.simplefilter("ignore")
            self.accelerator = accelerate.Accelerator(
                cpu=on_cpu,
                mixed_precision="no",
                kwargs_handlers=[timeout],
                step_scheduler_with_optimizer=False,
            )
        self.device = self.accelerator.device
        keeps = self.device.type == "cpu" and "kept_memory" not in model.disable_speedups
        linear.keep_room(keeps)
        if keeps:
            _keep_freed_memory()
        self.rank = self.accelerator.process_index
        self.world_size = self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.precision = precision = resolve_compute_type(model.compute_type, self.device)
        if model.tf32:
            allow_tf32(self.device)
        products.choose(self.device, precision, model.disable_speedups)
        self.scales = precision.scaler
        """True when fp16's gradient scaler is on: it skips steps with non-finite gradients by itself."""
        self._autocast_dtype = precision.autocast
        self._scaler = torch.amp.GradScaler(enabled=precision.scaler)
        if cfg.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)

    # -- the model and its batches

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model on its device, wrapped so that gradients are averaged over processes when there are several."""
        with HERE.meeting():
            return self.accelerator.prepare_model(model)

    def pinned(self, batch: Batch) -> Batch:
        """The batch in memory from which a GPU reads by itself, while the host goes on; in any thread."""
        if self.device.type != "cuda":
            return batch
        with torch.cuda.device(self.device):  # which a thread that is not the main one starts without
            return batch.map(Tensor.pin_memory)

    def to_device(self, batch: Batch) -> Batch:
        """The batch with its tensors on this process's device; what is pinned is copied without waiting for it."""
        if self.device.type == "cpu":
            return batch
        return batch.map(lambda tensor: tensor.to(self.device, non_blocking=True))

    def autocast(self) -> Any:
        """Context in which the forward pass computes in the run's compute type."""
        if self._autocast_dtype is None:
            return nullcontext()
        # Without its cache, which would hold short copies of all weights to the end of the forward pass; each is used once.
        return torch.autocast(self.device.type, dtype=self._autocast_dtype, cache_enabled=False)

    def accumulate(self, policy: nn.Module, sync: bool) -> Any:
        """Context of one micro-batch's pass; gradients travel between processes only in the last one (`sync`)."""
        if not sync:
            return self.accelerator.no_sync(policy)
        return nullcontext() if self.world_size == 1 else HERE.meeting()

    # -- gradients

    def backward(self, cost: Tensor) -> None:
        """Add the gradients of `cost`, shape []."""
        if HERE.waits:  # in the pass after which gradients travel: what went before was not yet the wait
            HERE.meetings += 1
        self._scaler.scale(cost).backward()

    def clip(self, trained: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """Length of the gradient, shape [], unread; when it is above `max_norm` (0: no limit) the gradient is scaled down
        to it."""
        if self.scales and self._optimizer is not None:
            self._scaler.unscale_(self._optimizer)
        grads = [p.grad for p in trained if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_([p for p in trained if p.grad is not None], max_norm, norm)
        return norm

    def use(self, optimizer: Optimizer) -> None:
        """Name the optimizer whose gradients `clip` unscales in fp16."""
        self._optimizer = optimizer

    _optimizer: Optimizer | None = None

    def step(self, optimizer: Optimizer) -> None:
        """Move the weights; with fp16's scaler, unless a gradient is non-finite."""
        if self.scales:
            self._scaler.step(optimizer)
            self._scaler.update()
        else:
            optimizer.step()

    # -- between processes

    def sums(self, *values: float) -> list[float]:
        """Each value summed over all processes.  Counts below 2^53 are exact."""
        if self.world_size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        with HERE.meeting():
            dist.all_reduce(tensor)
            return tensor.tolist()

    def read(self, cost: Tensor, stop: int | None, norm: Tensor) -> tuple[float, int | None, float]:
        """`cost` summed over all processes, the signal that `stop` is on one of them, and `norm`, which is the same on all:
        one transfer from the device."""
        asked = torch.full_like(cost, as_part(stop), dtype=torch.float64)
        found = torch.stack([cost.double(), asked, norm.to(cost).double()])
        if self.world_size == 1:
            total, stops, length = found.tolist()
        else:
            with HERE.meeting():
                dist.all_reduce(found[:2])
                total, stops, length = found.tolist()
        return total, of_sum(stops), length

    def gathered(self, value: Any) -> list[Any]:
        """Every process's `value`, in the order of the processes, on all of them."""
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        with HERE.meeting():
            dist.all_gather_object(found, value)
        return found

    def from_main(self, value: Any) -> Any:
        """Rank 0's `value` (anything JSON can hold) on every process."""
        if self.world_size == 1:
            return value
        text = json.dumps(value if self.is_main else None).encode()
        length = torch.tensor([len(text)], device=self.device)
        with HERE.meeting():
            dist.broadcast(length, src=0)
            data = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
            if self.is_main:
                data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
            dist.broadcast(data, src=0)
            return json.loads(bytes(data.cpu().tolist()).decode())

    def wait(self) -> None:
        """Return once every process is here."""
        with HERE.meeting():
            self.accelerator.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[bool]:
        """Run the body with True on rank 0; the others wait for it before they go on."""
        yield self.is_main
        self.wait()

    def close(self) -> None:
        """Wait for the others before leaving.  The process group ends with its processes, as `jobs/start.py` ends them."""
        self.wait()

    # -- randomness

    def seed(self, stream: str, root: int, *, every_rank_its_own: bool = True) -> None:
        """Start torch's random numbers anew for one purpose, from the run's seed, so that what one part draws changes
        nothing for another."""
        rank = self.rank if every_rank_its_own else 0
        digest = hashlib.sha256(f"{root}:{stream}:{rank}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def random_states(self) -> dict[str, Tensor]:
        """Random states of all processes, uint8, by `rank.device`; the same on every process."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        gathered: dict[str, Tensor] = {}
        for name, state in states.items():
            everyone = [torch.zeros_like(state, device=self.device) for _ in range(self.world_size)]
            if self.world_size > 1:
                with HERE.meeting():
                    dist.all_gather(everyone, state.to(self.device))
            else:
                everyone = [state]
            gathered |= {f"{rank}.{name}": one.cpu() for rank, one in enumerate(everyone)}
        if self.scales:
            gathered["scaler"] = torch.tensor(list(json.dumps(self._scaler.state_dict()).encode()), dtype=torch.uint8)
        return gathered

    def restore_random_states(self, states: dict[str, Tensor]) -> None:
        """Put back what `random_states` gave; a process that was not there before keeps its own state."""
        if (mine := states.get(f"{self.rank}.cpu")) is not None:
            torch.set_rng_state(mine)
        if self.device.type == "cuda" and (mine := states.get(f"{self.rank}.cuda")) is not None:
            torch.cuda.set_rng_state(mine, self.device)
        if self.scales and "scaler" in states:
            self._scaler.load_state_dict(json.loads(bytes(states["scaler"].tolist())))


def _leave_out_settings() -> None:
    """Take accelerate's variables out of the environment, which would change a run behind its options' back."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        value = os.environ.pop(name)
        if name.startswith("ACCELERATE_USE_") and value.lower() in ("1", "true", "yes"):
            warn(name, "has no effect here: what a run does is said by its options alone")


def _keep_freed_memory() -> None:
    """Have glibc keep large blocks that torch frees, for the next ones, instead of asking the system for fresh pages in
    every operation."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in MALLOC.items():
            libc.mallopt(option, value)
