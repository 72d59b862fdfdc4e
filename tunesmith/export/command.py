"""`tunesmith export`: merges adapters into their base model and writes it.  Tells the order; knows no tensors."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunesmith import files, log, shortage
from tunesmith.config.load import Loaded, load
from tunesmith.config.schema import Config
from tunesmith.data.chat_format import chat_format
from tunesmith.export import beside, plan
from tunesmith.export.hub import upload
from tunesmith.export.plan import GIGABYTE, Plan
from tunesmith.generate.source import run_options, settle
from tunesmith.jobs.importing import quickly
from tunesmith.log import OptionError, OutOfMemory, RunError
from tunesmith.models.where import Source, find, find_adapters
from tunesmith.templates.conversation import ChatFormat
from tunesmith.templates.resolve import TokenizerWords

SHOWN_FROM_BYTES = 2 * GIGABYTE
"""Smaller models are written before a bar would be read."""


def export_command(arguments: list[str]) -> int:
    """Write the merged model: `tunesmith export MODEL --export_dir FOLDER`; returns the exit code."""
    loaded = load(arguments, command="export")
    cfg = settle(loaded.config, loaded.given)
    assert cfg.export.export_dir  # `load` refuses to go on without it
    source, adapters = find(cfg.model), find_adapters(cfg.model)
    final = plan.place(cfg.export.export_dir, {"model_name_or_path": [source], "adapter_name_or_path": adapters})
    cfg = _on_the_whole_base(cfg, adapters)
    planned = plan.make(source, adapters, bins=cfg.export.export_legacy_format)
    plan.check_space(final, planned.needed_bytes)
    chat = _chat(loaded, cfg, adapters)
    if planned.in_memory:
        log.note("export", f"the model is merged in memory, in fp32: {planned.in_memory}")
    with _appearing(final) as folder:
        _write_weights(planned, source, adapters, cfg, folder)
        if cfg.model.rope_scaling is not None:
            _stretch(source, cfg, folder)
        beside.write(source, adapters, chat, folder)
        sizes = [path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    size, count = sum(sizes), len(sizes)
    log.say(f"{final}: {size / GIGABYTE:.2f} GB in {count} file{'s' * (count > 1)}, {plan.describe(planned)}")
    if cfg.export.export_hub_model_id:
        upload(final, cfg.export.export_hub_model_id, cfg.model.hf_hub_token)
    return 0


def _chat(loaded: Loaded, cfg: Config, adapters: Sequence[Source]) -> ChatFormat | None:
    """The chat format to write; None when that of the folders is the one that is meant."""
    if "template" not in loaded.given or cfg.data.template == "auto":
        return None
    last = run_options(adapters[-1].folder) if adapters else {}
    if last.get("template") == cfg.data.template:  # the run wrote it, its other options included
        return None
    return chat_format(cfg.data, TokenizerWords())


def _write_weights(planned: Plan, source: Source, adapters: Sequence[Source], cfg: Config, folder: Path) -> None:
    with quickly():
        import torch

    most_bytes = cfg.export.export_size * GIGABYTE
    on_gpu = cfg.export.export_device == "auto" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    if planned.in_memory:
        from tunesmith.models.merging import in_memory

        in_memory.write(
            source,
            adapters,
            cfg.model,
            folder,
            most_bytes=most_bytes,
            device=device,
            bins=cfg.export.export_legacy_format,
        )
        return
    from tunesmith.models.merging import stream

    torch.set_num_threads(1)  # pieces are small, and writing takes the other cores
    with _progress(planned.needed_bytes) as on_bytes:
        stream.write(planned.tensors, planned.changes, folder, most_bytes=most_bytes, device=device, on_bytes=on_bytes)


def _on_the_whole_base(cfg: Config, adapters: Sequence[Source]) -> Config:
    """The options without the few bits that a run held its base in.  Raises OptionError for an adapter that only fits those."""
    if cfg.model.quantization_bit is None:
        return cfg
    for adapter in adapters:
        if run_options(adapter.folder).get("lora_init") == "loftq":
            raise OptionError(
                f"adapter_name_or_path: {adapter.name} began as what {cfg.model.quantization_bit} bits round away (lora_init "
                "loftq), so it fits a base that is held so, and no whole one"
            )
    log.note("quantization_bit", f"trained on {cfg.model.quantization_bit} bits, merged into the base's whole weights")
    return cfg.model_copy(update={"model": cfg.model.model_copy(update={"quantization_bit": None})})


def _stretch(source: Source, cfg: Config, folder: Path) -> None:
    """Write the `config.json` of a model whose positions were stretched while adapters were trained."""
    from tunesmith.models import architecture, positions

    config, _ = architecture.read(source, cfg.model)
    assert cfg.model.rope_scaling is not None
    positions.stretch(config, cfg.model.rope_scaling, cfg.data.cutoff_len, tell=False)
    config.save_pretrained(folder)


@contextlib.contextmanager
def _appearing(final: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `final` when all went well, and else leaves nothing behind."""
    try:
        with files.only_one_to(final) as folder:
            yield folder
            files.publish_folder(folder, final)
    except Exception as problem:
        if (found := shortage.found(problem)) is not None:
            raise OutOfMemory(f"out of memory while {final} was made: nothing is left of it ({found})") from problem
        if not isinstance(problem, OSError) and not files.is_full(problem):
            raise
        raise RunError(f"export_dir: {final} can't be written: {files.reason(problem)}") from problem


@contextlib.contextmanager
def _progress(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A function to tell of bytes that were written; a bar on a terminal shows them."""
    if total_bytes < SHOWN_FROM_BYTES or not sys.stderr.isatty():
        yield lambda written: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress("writing", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total_bytes)
        yield lambda written: bar.advance(task, written)
