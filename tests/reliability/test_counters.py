"""What a run counts is what it trained: tokens, tokens with padding, trained tokens and rows, against a count by hand."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from exact import Run, position
from ranks import Ranks
from transformers import AutoTokenizer

BEFORE = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
BETWEEN, BEHIND = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"
FILLER_TOKENS = 8
"""What a process computes on that is left without a row."""


class Counted(NamedTuple):
    """What a run has counted."""

    tokens: int
    padded: int
    trained: int
    rows: int


class Row(NamedTuple):
    """A row's tokens, and those that are trained: the answer with all that the template puts behind it."""

    tokens: int
    trained: int


@pytest.fixture(scope="module")
def rows(tiny_model: Path, talks: Path) -> list[Row]:
    """The rows of `talk`, read by the tokenizer alone."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    talk = json.loads((talks / "talk.json").read_text())
    return [
        Row(
            count(BEFORE + row["instruction"] + BETWEEN) + count(row["output"]) + count(BEHIND),
            count(row["output"]) + count(BEHIND),
        )
        for row in talk
    ]


def chunks(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """The rows in their order, so many at a time."""
    walk = iter(rows)
    while chunk := list(islice(walk, size)):
        yield chunk


def by_hand(rows: list[Row], *, batch: int, window: int, ranks: int, padded: bool) -> Counted:
    """What steps over `rows` count, in their order: micro-batches of `batch` rows, padded to the longest or not at all."""
    computed = 0
    for step in chunks(rows, window):
        batches = list(chunks(step, batch))
        computed += sum(
            len(each) * max(row.tokens for row in each) if padded else sum(row.tokens for row in each)
            for each in batches
        )
        computed += FILLER_TOKENS * (-len(batches) % ranks)
    return Counted(sum(row.tokens for row in rows), computed, sum(row.trained for row in rows), len(rows))


def counted(folder: Path) -> Counted:
    """What the last checkpoint says, which is what the log says."""
    checkpoint = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    here = position(checkpoint)
    last = here.log_history[-1]
    assert last["num_input_tokens_seen"] == here.tokens
    assert last["num_padded_tokens_seen"] == here.padded_tokens
    assert last["num_loss_tokens_seen"] == here.loss_tokens
    return Counted(here.tokens, here.padded_tokens, here.loss_tokens, here.rows)


SHARED = {
    "include_num_input_tokens_seen": True,
    "disable_shuffling": True,
    "num_train_epochs": 1,
    "disable_speedups": "even_sizes",  # whose tokens count as padding
}

PADDED = {"disable_speedups": "no_padding"}
STREAMED = {"streaming": True, "max_steps": 2, "cutoff_len": 256}
PACKED = {"packing": True, "cutoff_len": 256, "per_device_train_batch_size": 1}

ALONE: dict[str, dict[str, Any]] = {
    "ragged": {},
    "padded": PADDED,
    "streamed": STREAMED,
    "streamed, padded": STREAMED | PADDED,
    "packed": PACKED,
    "packed, streamed": PACKED | {"streaming": True, "max_steps": 2, "buffer_size": 64},
    "length_grouped": {"batching": "length_grouped"},
    "token_budget": {"batching": "token_budget", "cutoff_len": 128},
}


@pytest.mark.parametrize("kind", ["ragged", "padded", "streamed", "packed", "token_budget"])
def test_one_process_counts_what_it_trains(run: Run, rows: list[Row], kind: str) -> None:
    one_process(run, rows, kind)


@pytest.mark.reliability
@pytest.mark.parametrize(
    "kind", [kind for kind in ALONE if kind not in ("ragged", "padded", "streamed", "packed", "token_budget")]
)
def test_one_process_counts_what_it_trains_in_any_kind_of_run(run: Run, rows: list[Row], kind: str) -> None:
    one_process(run, rows, kind)


def one_process(run: Run, rows: list[Row], kind: str) -> None:
    """A run over all rows once, or over the first 16 of a stream."""
    found = counted(run("run", **SHARED | ALONE[kind]))
    if "packed" in kind or kind in ("length_grouped", "token_budget"):
        whole = by_hand(rows, batch=4, window=8, ranks=1, padded=False)
        if "streamed" in kind:  # two steps of packed rows, and nobody knows by hand which
            assert 0 < found.trained < found.tokens <= found.padded <= 2 * 2 * 256
            return
        assert (found.tokens, found.padded, found.trained) == (whole.tokens, whole.tokens, whole.trained)
        assert found.rows == (whole.rows if "packed" not in kind else found.rows)
        return
    trained = rows[:16] if "streamed" in kind else rows
    assert found == by_hand(trained, batch=4, window=8, ranks=1, padded="padded" in kind)


TOGETHER: dict[str, dict[str, Any]] = {
    "ragged": {},
    "padded": PADDED,
    "streamed": STREAMED,
    "streamed, padded": STREAMED | PADDED,
    "packed": PACKED,
}


@pytest.fixture
def together(ranks: Ranks, options: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Path]:
    """`together("name", ...)`: the run of two processes in that folder."""

    def start(name: str, **written: Any) -> Path:
        ended = ranks.run(tmp_path, "train", *options(name, nproc_per_node=2, device="cpu", **written))
        assert ended.code == 0, ended.said
        return tmp_path / name

    return start


def two_processes(together: Callable[..., Path], rows: list[Row], kind: str) -> None:
    """Steps of 4 rows x 2 processes; the last one of 5 leaves the second process 1, that of 1 row none."""
    options = SHARED | {"gradient_accumulation_steps": 1} | TOGETHER[kind]
    found = counted(together("run", **options))
    if kind == "packed":
        whole = by_hand(rows, batch=4, window=8, ranks=1, padded=False)
        assert (found.tokens, found.trained) == (whole.tokens, whole.trained)
        assert found.padded in (whole.tokens, whole.tokens + FILLER_TOKENS)
        return
    trained = rows[:16] if "streamed" in kind else rows
    assert found == by_hand(trained, batch=4, window=8, ranks=2, padded="padded" in kind)
    if kind == "padded":
        short = counted(together("short", **options | {"max_samples": 17}))
        assert short == by_hand(rows[:17], batch=4, window=8, ranks=2, padded=True)


@pytest.mark.parametrize("kind", ["padded"])
def test_two_processes_count_what_both_train(together: Callable[..., Path], rows: list[Row], kind: str) -> None:
    two_processes(together, rows, kind)


@pytest.mark.reliability
@pytest.mark.parametrize("kind", [kind for kind in TOGETHER if kind != "padded"])
def test_two_processes_count_what_both_train_in_any_kind_of_run(
    together: Callable[..., Path], rows: list[Row], kind: str
) -> None:
    two_processes(together, rows, kind)
