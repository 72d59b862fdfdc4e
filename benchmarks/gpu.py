"""Steps on a GPU: tunesmith beside transformers and peft as they are, on the same packed rows.

    python benchmarks/gpu.py [--models NAME ...] [--only TABLE ...] [--minutes 9.5] [--data FILE] [--output FOLDER] [--tiny]

Models have the shapes of public ones and random weights in bf16, made on the device.  Rows are as long as real ones, packed to
4,096 tokens.  Prints tables in Markdown as they come: tokens a second, the share of the device's bf16 rate (LoRA counted as
4 x weights per token, full tuning as 6 x, attention added), peak memory, and the losses of the first steps of both; the
functions that compute the loss beside one another; and what single parts are worth.  What matters most comes first; nothing
is begun that would not end within `--minutes`, as long as what came before tells; what fails says why and the rest goes on.
`--tiny` tries everything on small shapes, on any device.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_losses import KERNELS, hear
from gpu_steps import Ours, Outcome, run, theirs
from gpu_work import SHAPES, Bench, Work, bench, called

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data" / "demo" / "alpaca_en_demo.json"

ONLY = ("steps", "losses", "parts")
STEPS, LOSSES, PARTS = "Steps", "The loss from hidden states, forward and back", "What single parts are worth"
HEADS = {
    STEPS: ("work", "way", "tokens/s", "ours / theirs", "of the bf16 rate", "peak GiB", "losses of the first steps"),
    LOSSES: ("head", "function", "ms", "GiB beside", "loss per token"),
    PARTS: ("work", "left out or added", "tokens/s", "of the bf16 rate", "peak GiB", "losses of the first steps"),
}

PART = {
    "nothing": Ours(),
    **{f"without {name}": Ours((name,)) for name in ("no_padding", "fused_loss", "fused_adapters", "lighter_layers")},
    "without Liger": Ours(("liger",)),
    "with Liger's loss": Ours(liger_loss=True),
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
    began = time.monotonic()
    end = began + 60 * arguments.minutes
    ground = bench(arguments.data, tiny=arguments.tiny)
    title = f"{called(ground.device)}, torch {torch.__version__}"
    print(title)
    pages, longest = Pages(title, arguments.output), 0.0
    wanted = {table for word, table in zip(ONLY, HEADS, strict=True) if word in arguments.only}
    planned = [case for case in cases(ground, arguments.models) if case.table in wanted]
    for done, case in enumerate(planned):
        now = time.monotonic()
        if now + longest > end:
            print(f"\n{len(planned) - done} of {len(planned)} left out for want of time")
            break
        pages.add(case.table, case.first, case.second, *tell(case, ground.device))
        longest = max(longest, time.monotonic() - now)
    print(f"\n{time.monotonic() - began:.0f} s")
    return 0


def cases(ground: Bench, models: list[str]) -> Iterator[Case]:
    """Everything, what matters most first."""
    large = [name for name in ("Llama-3.1-8B", "Qwen2.5-7B") if name in models]
    small = [name for name in models if name not in large]
    first = [*small[:1], *large[:1]]
    for model in first:
        yield from _steps(ground, Work(model))
    for model in large[:1]:
        yield from _steps(ground, Work(model, checkpointing=True))
    for model in first[:1]:
        yield from _parts(ground, Work(model))
    for model in first:
        yield from _losses(ground, model)
    for model in models:
        if model not in first:
            yield from _steps(ground, Work(model))
    for model in small:
        yield from _steps(ground, Work(model, full=True))
    for model in small[:1]:
        yield from _steps(ground, Work(model, rows=8))
    for model in large[:1]:
        yield from _parts(ground, Work(model))


def _steps(ground: Bench, work: Work) -> Iterator[Case]:
    rates: dict[str, float] = {}

    def measure(way: str) -> tuple[str, ...]:
        outcome = run(ground, work, Ours() if way == "tunesmith" else theirs)
        rates[way] = outcome.rate
        ratio = f"{rates['tunesmith'] / outcome.rate:.2f}" if len(rates) == 2 else ""
        rate, *rest = _told(ground, work, outcome)
        return rate, ratio, *rest

    for way in ("tunesmith", "transformers + peft"):
        yield Case(STEPS, work.name(ground.row_tokens), way, lambda way=way: measure(way))


def _parts(ground: Bench, work: Work) -> Iterator[Case]:
    for name, ours in PART.items():
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
    except Exception as error:  # one case must not cost the others
        reason = f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:160].replace("|", "/")
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return reason, *[""] * (len(HEADS[case.table]) - 3)


def _head(table: str) -> tuple[str, str]:
    names = HEADS[table]
    return f"| {' | '.join(names)} |", "|" + "---|" * len(names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=ONLY, default=ONLY, help="tables")
    parser.add_argument("--minutes", type=float, default=9.5, help="nothing is begun that would end later")
    parser.add_argument("--data", type=Path, default=DATA, help="alpaca rows, for their lengths")
    parser.add_argument("--output", type=Path, help="a folder for the tables, as gpu.md")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on any device")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
