"""`tunesmith inspect` on a run's data: what is shown is what is trained on, in every form of output."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tunesmith.config.load import load
from tunesmith.jobs.start import train_command
from tunesmith.log import DataError, OptionError
from tunesmith.look import screen
from tunesmith.look.dump import write_dump
from tunesmith.look.inspect_command import inspect_command
from tunesmith.look.plan import totals_of
from tunesmith.look.tokens import Segment, ShownToken
from tunesmith.train.inputs import read_inputs

LONG = "seven small birds saw the blue sea " * 9
ROWS: list[dict[str, str]] = [
    {"instruction": "Hi", "output": "Hello <b>& you</b>."},
    {"instruction": "Empty", "output": " "},
    {"instruction": LONG, "output": "Birds.\n"},
    {"instruction": "你好", "output": "你好！😀"},
    *({"instruction": f"Count to {number}", "output": "one " * number} for number in range(1, 30)),
]


@pytest.fixture
def yaml(tiny_model: Path, tmp_path: Path) -> Path:
    (tmp_path / "talk.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text(json.dumps({"talk": {"file_name": "talk.json"}}), encoding="utf-8")
    file = tmp_path / "x.yaml"
    file.write_text(
        f"model_name_or_path: {tiny_model}\ndataset: talk\ndataset_dir: {tmp_path}\ntemplate: chatml\ncutoff_len: 64\n"
        "per_device_train_batch_size: 2\ngradient_accumulation_steps: 4\nnum_train_epochs: 2\ndisable_tqdm: true\n",
        encoding="utf-8",
    )
    return file


def test_rows_and_totals_as_plain_lines(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_command([str(yaml)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "talk.json row 2: left out: empty answer" in lines
    assert "  + assistant   Hello <b>& you</b>." in lines
    assert "  ... " in "\n".join(lines) and "rows read     33 (talk 33)" in lines
    assert "steps         4 an epoch of 8 rows each, 8 in all" in lines
    assert any(line.startswith("padding ") for line in lines)


def test_asked_rows_come_with_ids(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_command([str(yaml), "--row", "4", "--ids"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("talk.json row 4: ")
    answer = next(line for line in lines if line.startswith("  + assistant"))
    assert re.sub(r"\[\d+\]", "", answer) == "  + assistant   你好！😀" and re.search(r"😀\[\d+\]", answer)


def test_json_is_all_there_is_on_standard_output(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_command([str(yaml), "--json", "--row", "1,3"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, cut = found["rows"]
    inputs = read_inputs(load([str(yaml)], command="inspect"))
    tokens = first["samples"][0]["tokens"]
    sample = inputs.prepared.train[0]
    assert [token["id"] for token in tokens] == sample.input_ids.tolist()
    assert [token["trained"] for token in tokens] == [label != -100 for label in sample.labels.tolist()]
    assert "".join(token["text"] for token in tokens) == inputs.tokenizer.decode(sample.input_ids)
    assert cut["whole_tokens"] > 64 and cut["samples"][0]["cut"][0]["tokens"] == cut["whole_tokens"] - 64
    totals = found["totals"]
    assert (totals["rows_read"], totals["rows_kept"], totals["dropped"], totals["cut"]) == (33, 32, 1, totals["cut"])
    assert totals["dropped_by_reason"] == {"empty answer": 1}
    assert totals["trained_tokens"] == sum(
        int((inputs.prepared.train[row].labels[1:] != -100).sum()) for row in range(len(inputs.prepared.train))
    )


def test_the_dump_is_what_the_trainer_gets(yaml: Path, tmp_path: Path) -> None:
    assert inspect_command([str(yaml), "--dump", str(tmp_path / "dump.jsonl"), "--val_size", "4"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "dump.jsonl").read_text(encoding="utf-8").splitlines()]
    train = read_inputs(load([str(yaml), "--val_size", "4"], command="inspect")).prepared.train
    assert len(lines) == len(train) == 28
    for index, line in enumerate(lines):
        assert line == {
            "input_ids": train[index].input_ids.tolist(),
            "labels": train[index].labels.tolist(),
        }


def test_packed_rows_are_dumped_as_they_are_trained(yaml: Path, tmp_path: Path) -> None:
    loaded = load([str(yaml)], command="inspect")
    data = loaded.config.data.model_copy(update={"packing": True})
    packing = replace(loaded, config=loaded.config.model_copy(update={"data": data}))
    inputs = read_inputs(packing)
    write_dump(tmp_path / "dump.jsonl", inputs.prepared)
    lines = [json.loads(line) for line in (tmp_path / "dump.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(sum(line["parts"]) == len(line["input_ids"]) <= 64 for line in lines)
    totals = totals_of(packing, inputs)
    assert len(lines) == totals.samples and sum(bin.samples for bin in totals.lengths) == 32
    assert totals.fill_rate == pytest.approx(totals.tokens / (64 * len(lines)))


class Page(HTMLParser):
    """Reads a page: its tags, all closed in order, and its text."""

    VOID = ("meta", "input")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_loads_nothing(yaml: Path, tmp_path: Path) -> None:
    assert inspect_command([str(yaml), "--html", str(tmp_path / "out.html")]) == 0
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "a"} and not page.attributes & {"src", "href", "onclick"}
    assert "url(" not in text and "@import" not in text and "prefers-color-scheme: dark" in text
    assert "&amp;" in text and "<b>&" not in text
    assert "talk.json row 2 left out: empty answer" in page.text and "Rows that were cut" in page.text
    assert "😀" in page.text


def test_a_passed_limit_is_said_and_ends_with_3(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_command([str(yaml), "--fail-if", "dropped>1%,trained_fraction<0.001"]) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fail-if")]
    assert said == ["fail-if: dropped>1%: dropped is 1, 3.03% of rows_read 33"]
    assert inspect_command([str(yaml), "--fail-if", "dropped>5%"]) == 0


@pytest.mark.parametrize(
    ("words", "problem", "kind"),
    [
        (["--row", "99"], "--row: there is no row 99 in talk", DataError),
        (["--html", "nofolder/out.html"], "--html: there is no folder nofolder", OptionError),
        (["--dump", "."], "--dump: . is a folder", OptionError),
        (["--fail-if", "loss>1"], "--fail-if: unknown total 'loss'", OptionError),
    ],
)
def test_wrong_words(yaml: Path, words: list[str], problem: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=re.escape(problem)):
        inspect_command([str(yaml), *words])


def test_what_is_read_is_not_written_over(yaml: Path, tmp_path: Path) -> None:
    for name in ("x.yaml", "talk.json", "dataset_info.json"):
        with pytest.raises(OptionError, match="is read by this command"):
            inspect_command([str(yaml), "--dump", str(tmp_path / name)])
    assert json.loads((tmp_path / "talk.json").read_text(encoding="utf-8")) == ROWS


@pytest.mark.parametrize("command", [inspect_command, train_command])
@pytest.mark.parametrize(
    ("answer", "words", "reason"),
    [("", [], "empty answer: 1"), ("Hello.", ["--train_roles", "system"], "no token to train: 1")],
)
def test_nothing_to_train_is_refused(
    yaml: Path, tmp_path: Path, command: Callable[[list[str]], int], answer: str, words: list[str], reason: str
) -> None:
    rows = [{"instruction": "Hi", "output": answer}]
    (tmp_path / "talk.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match=f"none of its 1 rows can be used .{reason}"):
        command([str(yaml), f"output_dir={tmp_path / 'run'}", *words])
    assert not (tmp_path / "run").exists()


def test_the_account_is_the_trainer_s(yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_command([str(yaml), f"output_dir={tmp_path / 'run'}"]) == 0
    trained = capsys.readouterr().out.splitlines()
    assert inspect_command([str(yaml)]) == 0
    inspected = capsys.readouterr().out.splitlines()
    account, again = (
        lines[: 1 + next(at for at, line in enumerate(lines) if line.startswith("trained "))]
        for lines in (trained, inspected)
    )
    start = again.index(account[0])
    assert account[0].startswith("rows read") and again[start:] == account
    assert any(line.startswith("8 steps of 8 rows") and "4 steps an epoch" in line for line in trained)


@pytest.mark.parametrize("stage", ["pt"])
def test_plain_text(yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str) -> None:
    (tmp_path / "story.txt").write_text("Once upon a time.\nThe end.\n", encoding="utf-8")
    assert inspect_command([str(yaml), "--stage", stage, "--dataset", str(tmp_path / "story.txt")]) == 0
    out, err = capsys.readouterr()
    assert "  + text" in out and "story.txt row 2: " in out
    assert err.count("read as text") == 1


def test_text_is_shown_in_one_line() -> None:
    assert screen.visible("a\n\tb\x00\u200b\\n") == "a↵⇥b\\x00\\u200b\\n"


def test_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    segments = [
        Segment("user", False, [ShownToken("[bold]Hi[/bold]", 5)]),
        Segment("assistant", True, [ShownToken("Hel", 6), ShownToken("lo\n", 7)], cut_before=3),
    ]
    screen.show([("rows.json row 1", segments)], ids=True, whole=True)
    out = capsys.readouterr().out
    assert "[bold]Hi[/bold]" in out and "\x1b[" in out and "3 tokens are cut away here" in out
    assert re.search(r"\x1b\[(\d+;)*7(;\d+)*m", out), "trained is reversed"


@pytest.mark.parametrize("batching", ["padded", "length_grouped", "token_budget"])
def test_steps_of_every_batching(yaml: Path, capsys: pytest.CaptureFixture[str], batching: str) -> None:
    assert inspect_command([str(yaml), "--batching", batching, "--json"]) == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    assert totals["steps"] == 2 * totals["steps_per_epoch"] > 0
    assert totals["rows_per_step"] * totals["steps_per_epoch"] == pytest.approx(32, abs=8)


@pytest.mark.parametrize("batching", ["padded", "token_budget"])
def test_data_to_evaluate_on_alone(
    yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], batching: str
) -> None:
    alone = tmp_path / "eval.yaml"
    alone.write_text(yaml.read_text(encoding="utf-8").replace("dataset: talk", "eval_dataset: talk\ndo_train: false"))
    assert inspect_command([str(alone), "--do_eval", "--batching", batching]) == 0
    out = capsys.readouterr().out
    assert "rows kept     0 to train on, 32 to evaluate" in out and "steps         0 an epoch" in out


def test_a_stream_is_told_by_its_first_rows(
    yaml: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tunesmith.data.streaming.stream.GROUP_ROWS", 12)
    words = [str(yaml), "--streaming", "--max_steps", "7", "--buffer_size", "5"]
    assert inspect_command([*words, "--dump", str(tmp_path / "rows.jsonl")]) == 0
    out, err = capsys.readouterr()
    assert "rows read     the first 12 (talk 12)" in out and "\nsteps         7 of " in out
    assert "all but the steps is of the first 12 rows; the others are streamed" in out
    kept = len((tmp_path / "rows.jsonl").read_text().splitlines())
    assert f"rows kept     {kept} to train on" in out and f"the first {kept} rows to train on are in " in err
    assert inspect_command([*words, "--json"]) == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    assert (totals["rows_read"], totals["steps_per_epoch"], totals["streamed"]) == (12, None, True)
    assert inspect_command([*words, "--fail-if", "steps_per_epoch<2"]) == 3
    assert "there is no steps_per_epoch with streaming" in capsys.readouterr().err


def test_weights_are_shown_where_a_row_has_them(yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."} | loss]}
        for loss in ({"loss": 0.5}, {"loss": 1.0})
    ]
    (tmp_path / "weighted.json").write_text(json.dumps(rows), encoding="utf-8")
    page, dump, data = tmp_path / "x.html", tmp_path / "x.jsonl", f"dataset={tmp_path / 'weighted.json'}"
    assert inspect_command([str(yaml), data, "--row", "1,2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  + assistant")]
    assert lines == ["  + assistant   (trained with weight 0.5) Hello.", "  + assistant   Hello."]
    assert inspect_command([str(yaml), data, "--row", "1,2", "--html", str(page), "--dump", str(dump)]) == 0
    capsys.readouterr()
    assert "assistant, trained with weight 0.5" in page.read_text() and "assistant, trained" in page.read_text()
    weighted, plain = map(json.loads, dump.read_text().splitlines())
    assert "weights" not in plain
    assert weighted["weights"] == [0.0 if label == -100 else 0.5 for label in weighted["labels"]]
    assert inspect_command([str(yaml), data, "--json", "--row", "1,2"]) == 0
    weighted_row, plain_row = json.loads(capsys.readouterr().out)["rows"]
    assert weighted_row["samples"][0]["weights"] == weighted["weights"] and "weights" not in plain_row["samples"][0]
