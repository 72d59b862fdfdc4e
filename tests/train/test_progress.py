"""Rate and time left are right, also after a resume; a terminal gets one live line, a file plain ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.train.telling.progress import Progress


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left_count_only_what_this_process_did() -> None:
    clock = Clock()
    progress = Progress("training", 100, start=60, clock=clock)
    for step in range(61, 71):
        clock.now += 2
        progress.advance(step, tokens=500 * step)
    assert progress.rate == 0.5
    assert progress.seconds_left == 60
    assert progress.token_rate == 250


def test_the_rate_is_of_late() -> None:
    clock = Clock()
    progress = Progress("training", 10_000, clock=clock)
    for step in range(1, 301):
        clock.now += 10 if step <= 100 else 1
        progress.advance(step)
    assert progress.rate == 1


def test_nothing_is_claimed_before_something_was_measured() -> None:
    progress = Progress("training", 10, clock=Clock())
    assert (progress.rate, progress.token_rate, progress.seconds_left) == (None, None, None)
    progress.advance(1, loss=2.0, tokens=100)
    assert progress.parts() == ["1/10", "10%", "loss 2.0000", "0:00"]


def test_a_file_gets_a_line_per_log_row(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("training", 4, clock=clock) as progress:
        for step in range(1, 5):
            clock.now += 0.5
            progress.advance(step, loss=2 / step, lr=5e-5, tokens=100 * step)
            if step % 2 == 0:
                progress.report(step, loss=1.0, epoch=step / 4)
    assert capsys.readouterr().err.splitlines() == [
        "training 2/4  50%  loss 1.0000  lr 5.00e-05  epoch 0.50  200 tokens/s  0:01 < 0:01",
        "training 4/4  100%  loss 1.0000  lr 5.00e-05  epoch 1.00  200 tokens/s  0:02 < 0:00",
    ]


def test_a_long_phase_gets_a_line_now_and_then_and_its_last_state(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("preparing rows", clock=clock) as progress:
        for done in range(1000, 12_500, 1000):
            clock.now += 1
            progress.rows(done, 12_000)
    assert capsys.readouterr().err.splitlines() == [
        "preparing rows 5,000/12,000  41%  1,000/s  0:05 < 0:07",
        "preparing rows 10,000/12,000  83%  1,000/s  0:10 < 0:02",
        "preparing rows 12,000/12,000  100%  1,000/s  0:12",
    ]


def test_lines_thin_out(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = Progress("training", 100_000, clock=clock)
    for step in range(1, 3601):
        clock.now += 1
        progress.advance(step)
    assert 60 < len(capsys.readouterr().err.splitlines()) < 130


def test_a_short_phase_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("preparing rows", clock=Clock()) as progress:
        progress.rows(91, 91)
    assert capsys.readouterr().err == ""


def test_switched_off_only_log_rows_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("training", 100, disable=True, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 10
            progress.advance(step)
            if step == 50:
                progress.report(step, loss=1.0)
    assert capsys.readouterr().err.splitlines() == ["training 50/100  50%  loss 1.0000  0.1/s  8:20 < 8:20"]


def test_only_rank_0_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with Progress("training", 2) as progress:
        progress.report(1, loss=1.0)
    assert capsys.readouterr().err == ""


def on_a_terminal(code: str, repo: Path) -> tuple[str, str]:
    """What `code` prints on standard output (a pipe) and on standard error (a terminal of 120 columns)."""
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(repo), "COLUMNS": "120", "TERM": "xterm", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment, encoding="utf-8"
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.stdout is not None
    result = process.stdout.read()
    assert process.wait() == 0, shown.decode()
    return result, shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_live_lines_and_results_stay_out_of_them(repo: Path) -> None:
    result, shown = on_a_terminal(
        "from tunesmith.log import say, warn\n"
        "from tunesmith.train.telling.progress import Progress\n"
        "with Progress('training', 3) as outer:\n"
        "    for step in (1, 2, 3):\n"
        "        outer.advance(step, loss=1.5 / step)\n"
        "        with Progress('evaluating', 7) as inner:\n"
        "            inner.rows(7, 7)\n"
        "    warn('cutoff_len', 'a [bold] row')\n"
        "    say('a result')\n",
        repo,
    )
    assert result == "a result\n"
    assert "warning: cutoff_len: a [bold] row" in shown
    assert "a result" not in shown
    last = [line for line in shown.split("\n") if "training" in line][-1]
    assert "3/3" in last and "100%" in last and "loss 0.5000" in last
    assert shown.count("evaluating") >= 3
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"), "the cursor is left visible"


def test_rich_is_not_imported_without_a_terminal(repo: Path) -> None:
    code = (
        "import sys\n"
        "from tunesmith.train.telling.progress import Progress\n"
        "with Progress('training', 3) as progress: progress.report(3, loss=1.0)\n"
        "sys.exit('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("training 3/3  100%  loss 1.0000  ")
