"""Worker processes end with their parent, and a killed one is told as a sentence."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_formats import ChatML
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.keeping.prepare import Workers
from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader
from tunesmith.data.reading.sources import Shape
from tunesmith.log import OutOfMemory


def rows(count: int) -> list[Row]:
    return [Row({"instruction": f"q{n}", "output": "a"}, "a.json", n) for n in range(1, count + 1)]


def test_small_data_is_prepared_without_other_processes(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = Encoder(tiny_tokenizer, ChatML(), DataConfig())
    with Workers(2, encoder, kind="conversation", strict=False, chunk_rows=10) as workers:
        assert sum(part.read for part in workers.prepare(rows(30), Reader(Shape()))) == 30
        assert workers.pool is None


def test_a_killed_worker_is_told_as_a_sentence(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = Encoder(tiny_tokenizer, ChatML(), DataConfig())
    with Workers(2, encoder, kind="conversation", strict=False, chunk_rows=1) as workers:

        def rows_and_a_kill() -> Iterator[Row]:
            for row in rows(200):
                if row.number == 100:
                    assert workers.pool is not None
                    for process in list(workers.pool._processes):
                        os.kill(process, signal.SIGKILL)
                yield row

        with pytest.raises(OutOfMemory, match="a process that prepared rows was killed"):
            list(workers.prepare(rows_and_a_kill(), Reader(Shape())))


SCRIPT = """
import os, signal, sys
from transformers import AutoTokenizer
from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader
from tunesmith.data.keeping.prepare import Workers
from tunesmith.data.reading.sources import Shape

if __name__ == "__main__":
    encoder = Encoder(AutoTokenizer.from_pretrained(sys.argv[1]), None, DataConfig())
    rows = (Row({"instruction": "q", "output": "a"}, "a.json", n) for n in range(1000))
    workers = Workers(2, encoder, kind="text", strict=False, chunk_rows=1)
    next(workers.prepare(rows, Reader(Shape())))
    print(*workers.pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_parent_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, tmp_path / "script.py", tiny_model], stdout=subprocess.PIPE, text=True)
    out, _ = parent.communicate(timeout=120)  # returns when the last process that holds the pipe is gone
    assert parent.returncode == -signal.SIGKILL and len(out.split()) == 2
