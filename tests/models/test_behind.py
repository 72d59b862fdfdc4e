"""Writing behind: all that was given in its order, and a failure of the disk is the caller's."""

from pathlib import Path

import pytest

from tunesmith.models.merging import behind
from tunesmith.models.merging.behind import Behind


def test_pieces_are_written_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "SYNC_BYTES", 500)
    pieces = [bytes([number % 251]) * (number % 97) for number in range(400)]
    with open(tmp_path / "file", "xb", buffering=0) as stream, Behind(stream) as out:
        for piece in pieces:
            out.write(piece)
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


def test_a_full_disk_is_told() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space left"), open(full, "wb", buffering=0) as stream, Behind(stream) as out:
        for _ in range(100):
            out.write(b"x")


def test_the_callers_own_failure_is_not_hidden(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="its own"),
        open(tmp_path / "file", "xb", buffering=0) as stream,
        Behind(stream) as out,
    ):
        out.write(b"x")
        raise RuntimeError("its own")
