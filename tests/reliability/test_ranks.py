"""Several processes of which one stands still, dies, fails or gets a signal: every one ends, with one error that names it, and
the same command goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exact import assert_equal
from faulty import environment
from ranks import MISLED, PATIENCE_SECONDS, Ended, Ranks

NOISE = ("Traceback", "gloo", "onnection closed", "ProcessGroup", "internal error: RuntimeError")
"""What torch says of another process's end, and nobody wants to read."""

PLACES = {
    "preparation": "tunesmith.data.pipeline:prepare:1",
    "step": "tunesmith.train.loop:backward:3",
    "evaluation": "tunesmith.train.judging.evaluate:batch_of:2",
    "save": "tunesmith.train.checkpoint:_plain:1",
}
"""Where -> a function that a run calls there, and which call it is."""

TIMEOUT = 6
"""`ddp_timeout` where a process stands still: seconds."""

Words = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def words(tiny_model: Path, talks: Path) -> Words:
    """`words(max_steps=4)`: two processes, which evaluate and save every second step."""

    def together(**changes: Any) -> list[Any]:
        options = {
            "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": talks, "template": "qwen", "output_dir": "run",
            "per_device_train_batch_size": 2, "max_steps": 6, "save_steps": 2, "val_size": 8, "eval_steps": 2,
            "per_device_eval_batch_size": 1, "disable_speedups": "merged_batches", "learning_rate": 1e-2,
            "lora_dropout": 0.2, "compute_type": "fp32", "logging_steps": 1, "disable_tqdm": True, "nproc_per_node": 2,
            "device": "cpu",
        }  # fmt: skip
        return ["train", *(f"{name}={value}" for name, value in (options | changes).items())]

    return together


@pytest.fixture(scope="module")
def straight(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory, words: Words) -> Iterator[Path]:
    """The run that nothing happens to."""
    folder = tmp_path_factory.mktemp("straight")
    ended = ranks.run(folder, *words())
    assert ended.code == 0, ended.said
    yield folder / "run"


def error(ended: Ended) -> str:
    """The one line that tells why the run ended, beside which there is no word of torch's."""
    told = [line for line in ended.said.splitlines() if line.startswith("rank ")]
    assert len(told) == 1, ended.said
    assert not [word for word in NOISE if word in ended.said], ended.said
    return told[0]


def goes_on(ranks: Ranks, folder: Path, words: Words, straight: Path) -> None:
    """The same command ends as the run that nothing happened to."""
    ended = ranks.run(folder, *words())
    assert ended.code == 0, ended.said
    assert_equal(straight, folder / "run")
    assert not [path.name for path in (folder / "run").iterdir() if path.name.startswith(".")]


# -- a process that stands still


def stands_still(ended: Ended, rank: int, how: str, where: str) -> None:
    """It is told with its rank, process, step and stack."""
    assert ended.code == 1, ended.said
    told = error(ended)
    assert re.match(rf"rank {rank} \(process \d+ on \S+\) ", told), told
    what = "stands still: others have waited for it" if how == "loop" else "does not answer for"
    assert what in told and (how == "loop" or "stopped by a signal such as SIGSTOP" in told), told
    assert "its last step was" in told or "it had not made a step" in told
    stack = ended.said[ended.said.index("It was last seen here:") :]
    assert all(re.fullmatch(r"  \S.*:\d+ in \S+", line) for line in stack.splitlines()[1:] if line.startswith(" ")), (
        stack
    )
    if how == "loop":
        assert "tunesmith/train/" in stack, stack
        assert "sitecustomize.py" in stack.splitlines()[-1], stack


@pytest.mark.parametrize(("rank", "how"), [(1, "loop"), (0, "stop")])
def test_a_process_that_stands_still_is_told_with_its_step_and_stack(
    ranks: Ranks, tmp_path: Path, words: Words, rank: int, how: str
) -> None:
    ended = ranks.run(tmp_path, *words(ddp_timeout=TIMEOUT), misled=f"{rank}:{PLACES['step']}:{how}")
    stands_still(ended, rank, how, "step")


@pytest.mark.reliability
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("how", ["loop", "stop"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_may_stand_still_anywhere(
    ranks: Ranks, tmp_path: Path, words: Words, rank: int, how: str, where: str
) -> None:
    if where == "save" and rank:
        pytest.skip("only rank 0 writes")
    ended = ranks.run(tmp_path, *words(ddp_timeout=TIMEOUT), misled=f"{rank}:{PLACES[where]}:{how}")
    stands_still(ended, rank, how, where)


# -- a process that dies or fails

DEATHS = {"kill": 128 + signal.SIGKILL, "raise": 1, "memory": 4}
"""How a process dies -> the run's exit code."""

OWN_WORDS = {
    "raise": ("internal error: ValueError: ", "this rank was told to fail"),
    "memory": ("out of memory", "this rank was told to ask for too much"),
}
"""How its error begins, and what it says."""


def dies(ended: Ended, rank: int, how: str) -> None:
    """It is told in its own words, or with the signal that ended it."""
    assert ended.code == DEATHS[how], ended.said
    if how == "kill":
        assert re.match(
            rf"rank {rank} \(process \d+ on \S+\) was ended by SIGKILL, most likely for its memory;", error(ended)
        )
        return
    kind, told = OWN_WORDS[how]
    lines = [line for line in ended.said.splitlines() if told in line]
    assert len(lines) == 1 and lines[0].startswith(f"rank {rank}: {kind}" if rank else kind), ended.said
    assert not [word for word in NOISE if word in ended.said], ended.said


@pytest.mark.parametrize(("rank", "how"), [(1, "kill"), (1, "memory"), (0, "raise")])
def test_a_process_that_dies_is_told_and_ends_the_others(
    ranks: Ranks, tmp_path: Path, words: Words, rank: int, how: str
) -> None:
    dies(ranks.run(tmp_path, *words(), misled=f"{rank}:{PLACES['step']}:{how}"), rank, how)


@pytest.mark.reliability
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("how", DEATHS)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_may_die_anywhere(
    ranks: Ranks, tmp_path: Path, words: Words, straight: Path, rank: int, how: str, where: str
) -> None:
    if where == "save" and rank:
        pytest.skip("only rank 0 writes")
    dies(ranks.run(tmp_path, *words(), misled=f"{rank}:{PLACES[where]}:{how}"), rank, how)
    goes_on(ranks, tmp_path, words, straight)


def test_an_error_that_all_processes_find_is_told_once(ranks: Ranks, tmp_path: Path, words: Words, talks: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "dataset_info.json").write_text('{"talk": {"file_name": "talk.json"}}')
    (tmp_path / "bad" / "talk.json").write_text((talks / "talk.json").read_text()[:-5])
    ended = ranks.run(tmp_path, *words(dataset_dir=tmp_path / "bad"))
    assert ended.code == 3, ended.said
    assert ended.said.count("talk.json") == 1, ended.said
    assert "rank" not in ended.said


# -- a signal


def stops(ended: Ended, signum: int) -> None:
    """In good order."""
    assert ended.code == 128 + signum, ended.said
    assert not [word for word in NOISE if word in ended.said], ended.said
    assert "rank " not in ended.said


@pytest.mark.parametrize(("where", "how"), [("preparation", "int"), ("evaluation", "term")])
def test_a_signal_stops_all_processes_in_good_order(
    ranks: Ranks, tmp_path: Path, words: Words, straight: Path, where: str, how: str
) -> None:
    stops(
        ranks.run(tmp_path, *words(), misled=f"1:{PLACES[where]}:{how}"),
        signal.SIGINT if how == "int" else signal.SIGTERM,
    )
    if where == "evaluation":
        saved = tmp_path / "run" / "checkpoint-2" / "resume.json"
        assert json.loads(saved.read_text())["is_unevaluated"], "the evaluation was not left for later"
    goes_on(ranks, tmp_path, words, straight)


MOMENTS = [
    "tunesmith.train.inputs:find:1",
    "tunesmith.data.pipeline:prepare:1",
    "tunesmith.data.pipeline:_finished:1",
    "tunesmith.train.run:claim:1",
    "tunesmith.train.session:tuned_model:1",
    "tunesmith.train.session:timetable:1",
    "tunesmith.train.loop:backward:1",
    "tunesmith.train.loop:backward:2",
    "tunesmith.train.judging.evaluate:batch_of:1",
    "tunesmith.train.judging.evaluate:batch_of:4",
    "tunesmith.train.checkpoint:_plain:1",
    "tunesmith.train.loop:backward:5",
    "tunesmith.train.judging.evaluate:batch_of:10",
]
"""From the reading of options to the last evaluation."""


@pytest.mark.reliability
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["int", "term"])
def test_a_signal_at_any_moment_stops_all_processes_in_good_order(
    ranks: Ranks, tmp_path: Path, words: Words, straight: Path, moment: str, how: str
) -> None:
    stops(ranks.run(tmp_path, *words(), misled=f"0:{moment}:{how}"), signal.SIGINT if how == "int" else signal.SIGTERM)
    goes_on(ranks, tmp_path, words, straight)


@pytest.mark.reliability
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all(
    ranks: Ranks, tmp_path: Path, words: Words, straight: Path, where: str, rank: int
) -> None:
    if where == "save" and rank:
        pytest.skip("only rank 0 writes")
    stops(ranks.run(tmp_path, *words(), misled=f"{rank}:{PLACES[where]}:term itself"), signal.SIGTERM)
    goes_on(ranks, tmp_path, words, straight)


@pytest.mark.reliability
def test_a_process_that_prepares_rows_and_is_killed_ends_the_run_with_a_sentence(tmp_path: Path, words: Words) -> None:
    variables = environment(tmp_path) | {"MISLED": "0:tunesmith.data.keeping.prepare:_work:3:kill", "RANK": "0"}
    variables["PYTHONPATH"] += f"{os.pathsep}{MISLED}"
    changed = words(preprocessing_num_workers=2, preprocessing_batch_size=1, nproc_per_node=1)
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", *map(str, changed)],
        cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8", timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "a process that prepared rows was killed, most likely for its memory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.reliability
def test_two_signals_end_processes_that_do_not_listen(ranks: Ranks, tmp_path: Path, words: Words) -> None:
    running = ranks.start(tmp_path, *words(), misled=f"1:{PLACES['step']}:stop")
    running.wait_for("training 2/6")
    running.signal(signal.SIGTERM)
    running.signal(signal.SIGTERM)
    assert running.wait().code


# -- under another launcher


@pytest.mark.reliability
@pytest.mark.parametrize("how", ["loop", "kill", "memory"])
def test_under_torchrun_it_is_told_as_well(tmp_path: Path, words: Words, how: str) -> None:
    variables = environment(tmp_path) | {"MISLED": f"1:{PLACES['step']}:{how}"}
    variables["PYTHONPATH"] += f"{os.pathsep}{MISLED}"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "tunesmith",
    ]
    changed = words(ddp_timeout=2 * TIMEOUT)
    done = subprocess.run(
        [*torchrun, *map(str, (word for word in changed if not str(word).startswith("nproc_per_node")))],
        cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8", timeout=2 * PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("rank 1")]
    assert len(told) == 1, done.stderr
    expected = {
        "loop": "stands still: others have waited",
        "kill": "is gone without a word: it was killed",
        "memory": "this rank was told to ask for too much",
    }
    assert expected[how] in told[0]
    assert "gloo" not in done.stderr
