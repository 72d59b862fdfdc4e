"""A disk that is really full: a small one in memory, on which a run stops, says what it needed, and goes on once there is room."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from exact import assert_equal
from faulty import Faulty

from tunesmith.jobs import checkpoints

DISK_BYTES = 16 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own of DISK_BYTES."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root on Linux may mount a disk in memory")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tunesmith-test", place],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path, free_bytes: int) -> Path:
    """A file that leaves so much room."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"\1" * (shutil.disk_usage(disk).free - free_bytes))
    return ballast


@pytest.mark.parametrize("part", [0.3, 1.4, 2.5])
def test_a_run_stops_and_goes_on_once_there_is_room(
    faulty: Faulty, tiny_model: Path, talks: Path, tmp_path: Path, disk: Path, part: float
) -> None:
    """With room for so many checkpoints of three."""
    options = {
        "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": talks, "template": "qwen",
        "finetuning_type": "full", "max_steps": 6, "save_steps": 2, "logging_steps": 1,
        "per_device_train_batch_size": 2, "compute_type": "fp32", "disable_tqdm": True, "tokenized_path": tmp_path / "rows",
    }  # fmt: skip
    words = ["train", *(f"{name}={value}" for name, value in options.items())]
    straight = faulty.run(tmp_path, *words, f"output_dir={tmp_path / 'straight'}")
    assert straight.code == 0, straight.said
    size = sum(path.stat().st_size for path in (tmp_path / "straight" / "checkpoint-2").rglob("*"))
    ballast = fill(disk, int(part * size) + (256 << 10))
    words.append(f"output_dir={disk / 'run'}")
    ended = faulty.run(tmp_path, *words)
    assert ended.code == 1, ended.said
    assert "Traceback" not in ended.said and "internal error" not in ended.said
    assert "warning: save_steps: 3 checkpoints of about " in ended.said
    assert "can't be written: No space left on device; about " in ended.said and "bytes were needed, " in ended.said
    saved = checkpoints.every(disk / "run")
    assert [each.name for each in saved] == [f"checkpoint-{2 * n}" for n in range(1, int(part) + 1)]
    assert not any(checkpoints.damage(each) for each in saved)
    assert not list((disk / "run").glob(".*.partial"))
    ballast.unlink()
    ended = faulty.run(tmp_path, *words)
    assert ended.code == 0, ended.said
    assert not saved or f"going on from {saved[-1]}" in ended.said
    assert_equal(tmp_path / "straight", disk / "run")
