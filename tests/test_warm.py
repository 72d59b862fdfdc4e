"""The process that commands are forked from passes exit codes on, and is no other Python than it was asked for."""

from pathlib import Path

from warm import Warm


def test_exit_codes_and_whatever_is_not_ours_are_as_ever(warm: Warm, tmp_path: Path) -> None:
    assert warm.run("tunesmith version", tmp_path).returncode == 0
    assert warm.run("python -m tunesmith trian", tmp_path).returncode == 2
    asked = "import sys; sys.exit(7 if 'torch' not in sys.modules else 8)"
    assert warm.run(f'python -c "{asked}"', tmp_path).returncode == 7
