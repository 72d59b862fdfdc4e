"""Steps on a GPU: tunesmith beside transformers and peft as they are, on the same packed rows.

    python benchmarks/gpu.py [--models NAME ...] [--only TABLE ...] [--minutes 9] [--seconds 75] [--data FILE]
                             [--output FOLDER] [--tiny]

Models have the shapes of public ones and random weights in bf16, made on the device.  Rows are as long as real ones, packed to
4,096 tokens.  Prints tables in Markdown as they come: tokens a second, the share of the device's bf16 rate (LoRA counted as
4 x weights per token, full tuning as 6 x, attention added), peak memory, and the losses of the first steps of both; the
functions that compute the loss beside one another; and what single parts are worth.  What matters most comes first.  A case is
measured in a process that may be lost: what fails, crashes or takes longer than `--seconds` says why, and the rest goes on in a fresh
one.  All is over after `--minutes`, and each line is printed, and kept in `--output`, as soon as it is there.
`--tiny` tries everything on small shapes, on any device.
"""

import argparse
import gc
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_losses import KERNELS, hear
from gpu_steps import Make, Ours, Outcome, run, theirs
from gpu_work import SHAPES, Bench, Work, bench, called
from gpu_worker import Lost, Worker, serve

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data" / "demo" / "alpaca_en_demo.json"

ONLY = ("steps", "fp8", "losses", "parts")
STEPS, SHORT = "Steps", "Products in fp8"
LOSSES, PARTS = "The loss from hidden states, forward and back", "What single parts are worth"
HEADS = {
    STEPS: ("work", "way", "tokens/s", "ours / theirs", "of the bf16 rate", "peak GiB", "losses of the first steps"),
    SHORT: ("work", "way", "tokens/s", "ours / theirs", "of the bf16 rate", "peak GiB", "losses of the first steps"),
    LOSSES: ("head", "function", "ms", "GiB beside", "loss per token"),
    PARTS: ("work", "left out or added", "tokens/s", "of the bf16 rate", "peak GiB", "losses of the first steps"),
}

OURS, THEIRS = "tunesmith", "transformers + peft"

LEAST_SECONDS = 10.0
"""With less left nothing is begun."""

MISSING = "not installed"

FAILED = ("does not fit", "failed: ", "lost: ")
"""How a line begins that tells why there are no figures; its process is not asked again."""

PART = {
    "nothing": Ours(),
    **{f"without {name}": Ours((name,)) for name in ("no_padding", "fused_loss", "fused_adapters", "lighter_layers")},
    "without Liger": Ours(("liger",)),
    "with Liger's loss": Ours(liger_loss=True),
    "with CUDA graphs": Ours(graphs=True),
    "with torch_compile": Ours(compile=True),
    "with torch_compile, without Liger": Ours(("liger",), compile=True),
}


@dataclass(frozen=True)
class Case:
    """One line of a table.  `measure` returns what stands behind its first two columns."""

    table: str
    first: str
    second: str
    measure: Callable[[], tuple[str, ...]]


class Pages:
    """The tables as they grow, printed and kept in a file."""

    def __init__(self, title: str, folder: Path | None):
        self.file = None if folder is None else folder / "gpu.md"
        self.title = title
        self.lines: dict[str, list[str]] = {}
        self.last = ""

    def add(self, table: str, *cells: str) -> None:
        if table != self.last:
            print("\n" + "\n".join((f"## {table}", "", *_head(table))))
            self.last = table
        self.lines.setdefault(table, []).append(f"| {' | '.join(cells)} |")
        print(self.lines[table][-1], flush=True)
        if self.file is not None:
            parts = (["", f"## {name}", "", *_head(name), *lines] for name, lines in self.lines.items())
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text("\n".join([self.title, *(line for part in parts for line in part), ""]), "utf-8")


def main() -> int:
    arguments = _arguments()
    wanted = {table for word, table in zip(ONLY, HEADS, strict=True) if word in arguments.only}
    ground = bench(arguments.data, tiny=arguments.tiny)
    planned = [case for case in cases(ground, arguments.models) if case.table in wanted]
    if arguments.worker:
        title = f"{called(ground.device)}, torch {torch.__version__}"
        return serve(title, lambda number: tell(planned[number], ground.device))
    began = time.monotonic()
    end = began + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.output or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        worker = Worker([sys.executable, *sys.argv, "--worker"], place / "gpu.log")
        try:
            _measure(planned, worker, arguments, end)
        finally:
            worker.close()
    print(f"\n{time.monotonic() - began:.0f} s")
    return 0


def _measure(planned: Sequence["Case"], worker: Worker, arguments: argparse.Namespace, end: float) -> None:
    """Ask for case after case as long as there is time."""
    title = f"torch {torch.__version__}"
    pages = Pages(title, arguments.output)
    rates: dict[tuple[str, str], float] = {}
    for done, case in enumerate(planned):
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            print(f"\n{len(planned) - done} of {len(planned)} left out for want of time")
            return
        try:
            cells = worker.ask(done, min(arguments.seconds, left))
        except Lost as reason:
            cells = _without_figures(case, f"lost: {reason}".replace("|", "/"))
        if cells[0].startswith(FAILED):
            worker.close()
        elif case.table in (STEPS, SHORT) and cells[0] != MISSING:
            rates[case.first, case.second] = float(cells[0].replace(",", ""))
            other = rates.get((case.first, THEIRS if case.second != THEIRS else OURS))
            if other is not None:
                ours = rates.get((case.first, OURS), 0.0) if case.second == THEIRS else rates[case.first, case.second]
                cells[1] = f"{ours / rates[case.first, THEIRS]:.2f}"
        if worker.first and not pages.lines:
            pages.title = worker.first
            print(worker.first)
        pages.add(case.table, case.first, case.second, *cells)


def cases(ground: Bench, models: list[str]) -> Iterator[Case]:
    """Everything, what matters most first."""
    large = [name for name in ("Llama-3.1-8B", "Qwen2.5-7B") if name in models]
    small = [name for name in models if name not in large]
    first = [*small[:1], *large[:1]]
    for model in first:
        yield from _steps(ground, Work(model))
    for model in small[:1]:
        yield from _recorded(ground, Work(model))
    for model in first[::-1]:
        yield from _short(ground, Work(model))
    for model in large[:1]:
        yield from _steps(ground, Work(model, checkpointing=True))
    for model in first:
        yield from _losses(ground, model)
    for model in models:
        if model not in first:
            yield from _steps(ground, Work(model))
            if model in small:
                yield from _recorded(ground, Work(model))
    for model in small[:1]:
        yield from _parts(ground, Work(model))
    for model in first[::-1]:
        yield from _steps(ground, Work(model, bits=4))
    for model in small:
        yield from _steps(ground, Work(model, full=True))
    for model in small[:1]:
        yield from _recorded(ground, Work(model, full=True))
    for model in small[:1]:
        yield from _short(ground, Work(model, full=True))
        yield from _steps(ground, Work(model, rows=8))
    for model in large[:1]:
        yield from _parts(ground, Work(model))


def _steps(ground: Bench, work: Work) -> Iterator[Case]:
    for way, make in ((OURS, Ours()), (THEIRS, theirs)):
        yield Case(STEPS, work.name(ground.row_tokens), way, lambda make=make: _step(ground, work, make))


def _recorded(ground: Bench, work: Work) -> Iterator[Case]:
    """What `_steps` measures, recorded where there is a GPU: of a small model it waits for Python."""
    name = work.name(ground.row_tokens)
    if ground.device.type == "cuda":
        yield Case(STEPS, name, f"{OURS}, CUDA graphs", lambda: _step(ground, work, Ours(graphs=True)))


def _short(ground: Bench, work: Work) -> Iterator[Case]:
    """The products in fp8, beside what `_steps` measures."""
    for way, make in (("fp8", Ours(fp8=True)), ("fp8, compiled", Ours(fp8=True, compile=True))):
        name = work.name(ground.row_tokens)
        yield Case(SHORT, name, f"{OURS}, {way}", lambda make=make: _step(ground, work, make))


def _step(ground: Bench, work: Work, make: Make) -> tuple[str, ...]:
    rate, *rest = _told(ground, work, run(ground, work, make))
    return rate, "", *rest


def _parts(ground: Bench, work: Work) -> Iterator[Case]:
    for name, ours in PART.items():
        if ours.graphs and ground.device.type != "cuda":
            continue
        yield Case(
            PARTS, work.name(ground.row_tokens), name, lambda ours=ours: _told(ground, work, run(ground, work, ours))
        )


def _losses(ground: Bench, model: str) -> Iterator[Case]:
    def measure(kernel: str, trained: bool) -> tuple[str, ...]:
        heard = hear(ground, model, kernel, trained_head=trained)
        return f"{heard.milliseconds:.1f}", f"{heard.gibibytes:.2f}", f"{heard.loss:.5f}"

    for trained in (False, True):
        for kernel in KERNELS:
            head = f"{model}'s, {'trained' if trained else 'frozen'}"
            yield Case(LOSSES, head, kernel, lambda kernel=kernel, trained=trained: measure(kernel, trained))


def _told(ground: Bench, work: Work, outcome: Outcome) -> tuple[str, ...]:
    losses = " ".join(f"{loss:.4f}" for loss in outcome.losses)
    return f"{outcome.rate:,.0f}", ground.share(work, outcome.rate), f"{outcome.gibibytes:.1f}", losses


def tell(case: Case, device: torch.device) -> tuple[str, ...]:
    """The cells of a case; where it fails, why."""
    try:
        return case.measure()
    except torch.OutOfMemoryError:
        reason = "does not fit"
    except ModuleNotFoundError:
        reason = MISSING
    except Exception as error:  # one case must not cost the others
        traceback.print_exc()
        reason = f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:160].replace("|", "/")
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return tuple(_without_figures(case, reason))


def _without_figures(case: Case, reason: str) -> list[str]:
    return [reason, *[""] * (len(HEADS[case.table]) - 3)]


def _head(table: str) -> tuple[str, str]:
    names = HEADS[table]
    return f"| {' | '.join(names)} |", "|" + "---|" * len(names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=ONLY, default=ONLY, help="tables")
    parser.add_argument("--minutes", type=float, default=9.0, help="when all is over")
    parser.add_argument("--seconds", type=float, default=75.0, help="what one case may take")
    parser.add_argument("--data", type=Path, default=DATA, help="alpaca rows, for their lengths")
    parser.add_argument("--output", type=Path, help="a folder for the tables, as gpu.md")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on any device")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
