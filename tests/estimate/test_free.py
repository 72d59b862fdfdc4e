"""What is free is the least of what the system can give and what the control group leaves."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tunesmith.estimate import free

CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(free, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free, "GROUPS", tmp_path)
    monkeypatch.setattr(free, "STATUS", tmp_path / "status")
    monkeypatch.setattr(free, "_kept_by_malloc", lambda: 0)
    return tmp_path


def test_of_the_system_and_its_group(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free.free_bytes(CPU) is None
    (files / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert free.free_bytes(CPU) == 4000 * 1024
    (files / "memory.max").write_text("max\n")
    (files / "memory.current").write_text("1000\n")
    assert free.free_bytes(CPU) == 4000 * 1024
    (files / "memory.max").write_text("5000\n")
    assert free.free_bytes(CPU) == 4000
    (files / "memory.stat").write_text("anon 200\ninactive_file 300\n")
    assert free.free_bytes(CPU) == 4300
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert free.free_bytes(CPU) == 2150


def test_of_an_older_group(files: Path) -> None:
    (files / "memory").mkdir()
    for name, value in (("limit_in_bytes", "5000"), ("usage_in_bytes", "1000")):
        (files / "memory" / f"memory.{name}").write_text(value)
    (files / "memory" / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 50\n")
    assert free.free_bytes(CPU) == 4050


def test_of_the_limits_of_a_process(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "status").write_text("VmPeak:\t 9 kB\nVmSize:\t  30 kB\nVmData:\t  10 kB\n")
    limits = {resource.RLIMIT_AS: 50 * 1024, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], resource.RLIM_INFINITY))
    assert free.free_bytes(CPU) == 20 * 1024
    limits[resource.RLIMIT_DATA] = 15 * 1024
    assert free.free_bytes(CPU) == 5 * 1024
    monkeypatch.setattr(free, "_kept_by_malloc", lambda: 100)
    assert free.free_bytes(CPU) == 5 * 1024 + 100


def test_what_malloc_keeps_is_counted() -> None:
    """Of the C library that has such a count; small blocks stay with the process."""
    before = free._kept_by_malloc()
    if not before:
        pytest.skip("this C library does not say")
    held = [torch.empty(16, 1024) for _ in range(64)]
    kept = free._kept_by_malloc()
    del held
    assert free._kept_by_malloc() > kept


def test_what_a_process_held_is_without_what_its_starter_holds() -> None:
    """Linux counts the starter's memory for a child that replaced itself by another program."""
    held = bytearray(1 << 30)
    held[:: 1 << 12] = b"1" * (1 << 18)
    word = "from tunesmith.estimate.free import most_resident; print(most_resident())"
    done = subprocess.run([sys.executable, "-c", word], capture_output=True, text=True, check=True)
    assert 20 << 20 < int(done.stdout) < len(held)
