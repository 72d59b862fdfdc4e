"""The same command twice gives the same bits, and what shapes no weight changes none."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from exact import Run, assert_equal, assert_same_tensors
from ranks import Ranks

Options = dict[str, Any]

KINDS: dict[str, Options] = {
    "lora with dropout": {"lora_dropout": 0.3},
    "full, packed": {"finetuning_type": "full", "packing": True, "cutoff_len": 256, "gradient_accumulation_steps": 1},
    "streamed": {"streaming": True, "max_steps": 6, "buffer_size": 8, "cutoff_len": 256, "lora_dropout": 0.1},
    "bf16, of like length": {"compute_type": "bf16", "batching": "length_grouped", "finetuning_type": "freeze"},
    "padded": {"disable_speedups": "no_padding", "lora_dropout": 0.1},
}

NEUTRAL: dict[str, Options] = {
    "three threads build batches": {"dataloader_num_workers": 3},
    "none does": {"disable_speedups": "loading_ahead"},
    "two processes prepare": {"preprocessing_num_workers": 2, "preprocessing_batch_size": 2},
    "logged seldom": {"logging_steps": 5},
    "logged at first": {"logging_first_step": True, "include_num_input_tokens_seen": True, "logging_steps": 2},
    "saved every step": {"save_steps": 1},
    "saved never": {"save_strategy": "no"},
    "only the model saved": {"save_steps": 2, "save_only_model": True, "save_total_limit": 1},
    "evaluated": {"eval_dataset": "more", "eval_steps": 2, "per_device_eval_batch_size": 3},
    "evaluated by epochs, with accuracy": {"eval_dataset": "more", "eval_strategy": "epoch", "metrics": "accuracy"},
    "data elsewhere": {"dataset_dir": "ELSEWHERE"},
    "tensorboard": {"report_to": "tensorboard", "run_name": "another"},
    "plotted": {"plot_loss": True},
    "prepared anew": {"disable_cache": True},
    "in Chinese, told more": {"lang": "zh", "debug": True},
}
"""What may be otherwise without a trained bit being so."""

SAMPLE = {
    "lora with dropout": ["two processes prepare", "evaluated", "data elsewhere"],
    "full, packed": ["three threads build batches", "saved every step", "tensorboard"],
}
"""Of the short test."""


def elsewhere(talks: Path, tmp_path: Path, changed: Options) -> Options:
    """The options, with the data in another folder where that is asked for."""
    if "dataset_dir" not in changed:
        return changed
    shutil.copytree(talks, tmp_path / "an other folder")
    return changed | {"dataset_dir": tmp_path / "an other folder"}


def together(kind: Options, changed: Options) -> Options:
    """Both; speed-ups that are left out add up."""
    left_out = [each["disable_speedups"] for each in (kind, changed) if "disable_speedups" in each]
    return kind | changed | ({"disable_speedups": ",".join(left_out)} if left_out else {})


def assert_same_weights(one: Path, other: Path) -> None:
    """Of two runs that are through."""
    names = sorted(path.name for path in one.glob("*.safetensors"))
    assert names
    for name in names:
        assert_same_tensors(one / name, other / name)


def of_each(names: Iterable[str], run: Run, talks: Path, tmp_path: Path, kind: Options) -> None:
    """One plain run of the kind, and one with each of what is neutral, which must end with its weights."""
    plain = run("plain", **kind)
    for number, name in enumerate(names):
        changed = elsewhere(talks, tmp_path, NEUTRAL[name])
        assert_same_weights(plain, run(f"{number} {name}", **together(kind, changed)))


@pytest.mark.parametrize("kind", SAMPLE)
def test_what_shapes_no_weight_changes_none(run: Run, talks: Path, tmp_path: Path, kind: str) -> None:
    of_each(SAMPLE[kind], run, talks, tmp_path, KINDS[kind])
    assert_equal(tmp_path / "plain", run("again", **KINDS[kind]))


@pytest.mark.reliability
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_shapes_no_weight_changes_one(run: Run, talks: Path, tmp_path: Path, kind: str) -> None:
    # A stream has no epoch's end.
    names = [name for name in NEUTRAL if not (kind == "streamed" and NEUTRAL[name].get("eval_strategy") == "epoch")]
    of_each(names, run, talks, tmp_path, KINDS[kind])


@pytest.mark.reliability
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_twice_gives_the_same_bits(run: Run, kind: str) -> None:
    assert_equal(run("one", **KINDS[kind]), run("other", **KINDS[kind]))


@pytest.mark.reliability
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_same_bits_twice(
    ranks: Ranks, options: Callable[..., list[str]], tmp_path: Path, kind: str
) -> None:
    for name in ("one", "other"):
        ended = ranks.run(tmp_path, "train", *options(name, nproc_per_node=2, device="cpu", **KINDS[kind]))
        assert ended.code == 0, ended.said
    assert_equal(tmp_path / "one", tmp_path / "other")
