"""A signal that comes while processes are made is neither lost nor told with a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.jobs import processes, watch

ASKS_WHAT_WAITS = """
import os, signal
from tunesmith.jobs import processes
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGTERM)
print(sorted(signal.sigpending()), flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
signal.signal(signal.SIGINT, lambda *_: None)
processes.listen_again()
"""


def test_a_process_gets_its_signals_once_it_listens() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with processes._held_back():
        process = subprocess.Popen(
            [sys.executable, "-c", ASKS_WHAT_WAITS],
            env=os.environ | {watch.VARIABLE: "somewhere"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    said, wrong = process.communicate()
    assert (said, wrong, process.returncode) == (f"{[signal.SIGINT, signal.SIGTERM]!r}\n", "", 7)


def test_signals_of_a_process_without_a_launcher_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(watch.VARIABLE, raising=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        processes.listen_again()
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_no_gpus_are_counted_where_no_driver_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,-1")
    monkeypatch.setattr(processes, "DRIVERS", (str(tmp_path), "/nowhere"))
    assert processes.gpus() == 2
    monkeypatch.setattr(processes, "DRIVERS", ("/nowhere",))
    assert processes.gpus() == 0
