"""What is free is the least of what the system can give and what the control group leaves."""

from pathlib import Path

import pytest
import torch

from tunesmith.estimate import free

CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(free, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free, "GROUPS", tmp_path)
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
