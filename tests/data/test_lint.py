"""Every check finds what it is for and lets ordinary rows pass; what is mended is not found again."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.chat_format import chat_format
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.faults.findings import CHECKS, Findings
from tunesmith.data.faults.lint import Linter, prompts
from tunesmith.data.faults.lint_rows import Words
from tunesmith.data.faults.mend import Mended, mended
from tunesmith.data.reading.sources import find_datasets

Write = Callable[[str, Any], Path]

OPENAI = {"file_name": "rows.jsonl", "formatting": "openai", "columns": {"messages": "messages", "tools": "tools"}}
PAIRS = {"file_name": "rows.jsonl", "ranking": True, "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}}
TOOLS = '[{"name": "look", "description": "d", "parameters": {}}]'
GERMAN = "Der Fluss ist breit, und das Boot, das auf dem Wasser liegt, ist nicht eines von den schnellen."
ENGLISH = "The river is wide, and the boat that you can see on it is not one of the fast ones."


def talk(*contents: str, roles: str = "ua", **more: Any) -> dict[str, Any]:
    """A row of messages; roles: user, assistant, system, observation (tool), function (calls)."""
    names = {"u": "user", "a": "assistant", "s": "system", "o": "tool", "f": "function_call"}
    messages = [
        {"role": names[role], "content": content}
        for role, content in zip((roles * len(contents))[: len(contents)], contents, strict=True)
    ]
    return {"messages": messages, **more}


def lint(
    write: Write,
    rows: list[Any],
    info: dict[str, Any] = OPENAI,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    evaluated: list[Any] | None = None,
    stage: str = "sft",
    **options: Any,
) -> Findings:
    write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write("eval.jsonl", "".join(json.dumps(row) + "\n" for row in evaluated or []))
    folder = write("dataset_info.json", {"rows": info, "eval": {**info, "file_name": "eval.jsonl"}}).parent
    cfg = DataConfig(dataset=["rows"], dataset_dir=str(folder), **{"template": "chatml", **options})
    encoder = Encoder(tokenizer, chat_format(cfg, tokenizer), cfg) if tokenizer else None
    words = Words.of(list(encoder.vocabulary.controls) if encoder else [], becomes=cfg.allow_special_tokens)
    linter = Linter(cfg, encoder, words, seed=1, stage=stage)
    return linter.lint(find_datasets(["rows"], str(folder)), find_datasets(["eval"] if evaluated else [], str(folder)))


FINE = [
    talk("What is 2+2?", "4 it is."),
    talk("Say café, naïve, “quoted” – 5 €.", "café, naïve, “quoted” – 5 €"),
    talk("你好，请问你是谁？", "我是一个小小的语言模型，很高兴认识你。"),
    talk("Hi", "Hello!", "And now?", "Bye."),
    talk("Where?", '{"name": "look", "arguments": {}}', "here", "It is here.", roles="ufoa", tools=TOOLS),
    talk("Be kind.", "Hi there", "<think>\nA greeting.\n</think>\n\nHello, you.", roles="sua"),
    talk("Write a loop.", "for (i = 0; i < n; i++) { a[i] = {x: 1}; }\n\n\t// done"),
    talk("Translate to German: the river", "der Fluss"),
]

WRONG: list[tuple[str, Any, str]] = [
    ("empty", talk("Hi", " "), "empty answer"),
    ("empty", {"messages": None}, "null in 'messages'"),
    ("role_order", talk("Hello", "Hi", roles="au"), "an answer without a question before it"),
    ("role_order", talk("Hi", "Hello", "And?"), "no answer at the end"),
    ("unusable", {"text": "x"}, "no column 'messages'"),
    ("tools", talk("Hi", "Hello", tools="{look}"), "tools are not JSON"),
    ("tools", talk("Hi", "look()", roles="uf", tools=TOOLS), "must hold its calls as JSON"),
    ("unknown_tool", talk("Hi", '{"name": "hear", "arguments": {}}', roles="uf", tools=TOOLS), "hear"),
    ("special_token", talk("Hi", "Hello.</s>"), "</s>"),
    ("special_token", talk("Hi <|user|>", "Hello."), "<|user|>"),
    ("repeats_prompt", talk("Tell me a long story, please.", "Tell me a long story,  please.\nOnce"), "it begins with"),
    ("repeats_prompt", talk("Tell me a long story, please.", "Tell me a long story, please."), "it is the question"),
    ("says_nothing", talk("Why?", "..."), "'...'"),
    ("says_nothing", talk("Why?", "N/A"), "'N/A'"),
    ("tiny_answer", talk("Is it 7?", "No"), "'No'"),
    ("placeholder", talk("Who?", "I am {{name}}."), "{{name}}"),
    ("placeholder", talk("Write a letter.", "Dear [Your Name], lorem ipsum"), "[Your Name]"),
    ("wrong_encoding", talk("Where?", "In the cafÃ©."), "'In the cafÃ©.' is 'In the café.'"),
    ("lost_characters", talk("Where?", "In the caf\ufffd."), ""),
    ("unseen_characters", talk("\ufeffHi", "Hel\u200blo."), "\\ufeff, \\u200b"),
    ("other_language", talk(ENGLISH, GERMAN), "asked in English, answered in German"),
]


@pytest.mark.parametrize(("check", "row", "detail"), WRONG)
def test_a_check_finds_its_row_and_no_other(write: Write, check: str, row: Any, detail: str) -> None:
    findings = lint(write, [*FINE, row])
    assert list(findings.found) == [check]
    [found] = findings.found[check]
    assert found.row == f"rows.jsonl row {len(FINE) + 1}" and detail in found.detail


def test_ordinary_rows_pass(write: Write) -> None:
    findings = lint(write, FINE)
    assert findings.lines(5) == ["8 rows (rows): nothing to complain about"]


def sentence(draw: random.Random, words: int = 40) -> str:
    return " ".join(f"w{draw.randrange(500)}" for _ in range(words))


def test_rows_are_compared_with_rows(write: Write) -> None:
    draw = random.Random(0)
    long = sentence(draw)
    rows = [
        talk("Hi there", long),
        talk("Hi  there", f"{long}\n"),
        talk("Hi there", "Hello."),
        talk("Another question", f"{long} end"),
    ]
    found = lint(write, rows).found
    assert {check: [each.row[-1] for each in rows] for check, rows in found.items()} == {
        "duplicate": ["2"],
        "other_answers": ["3"],
        "near_duplicate": ["4"],
    }


def test_training_data_is_compared_with_evaluation_data(write: Write) -> None:
    draw = random.Random(0)
    long = sentence(draw)
    rows = [talk("Hi there", "Hello."), talk("Fine?", long), talk("Other", "Bye now.")]
    found = lint(write, rows, evaluated=[talk("Hi  there", "Good day."), talk("Fine, is it?", long)]).found
    assert [(each.row, each.detail) for each in found["overlap"]] == [("rows.jsonl row 1", "as eval.jsonl row 1")]
    assert [each.row for each in found["near_overlap"]] == ["rows.jsonl row 2"]
    assert set(found) == {"overlap", "near_overlap"}


def test_rows_held_out_are_compared_too(write: Write, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    draw = random.Random(0)
    texts = [sentence(draw) for _ in range(10)]
    rows = [talk(f"Question {number}", texts[number % 10]) for number in range(20)]
    found = lint(write, rows, tokenizer=tiny_tokenizer, val_size=10).found
    alike = len(found["near_overlap"]) + len(found.get("near_duplicate", []))
    assert alike == 10 and found["near_overlap"]


def test_a_language_of_few_rows_is_told(write: Write) -> None:
    draw = random.Random(0)
    rows = [talk(f"{number}: {ENGLISH}", sentence(draw, 5)) for number in range(120)]
    found = lint(write, [*rows, talk(GERMAN, "Gut so.")]).found
    assert [(each.row, each.detail) for each in found["rare_language"]] == [("rows.jsonl row 121", "German")]


def test_tokens_are_looked_at_where_there_is_a_tokenizer(write: Write, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [talk("Hi", sentence(random.Random(0))), talk("Hi there", "Hello <|im_end|>")]
    found = lint(write, rows, tokenizer=tiny_tokenizer, cutoff_len=64).found
    assert found["too_long"][0].detail.endswith(" tokens, over cutoff_len 64")
    assert found["special_token"][0].detail == "<|im_end|>"
    found = lint(write, rows, tokenizer=tiny_tokenizer, cutoff_len=5, allow_special_tokens=True).found
    assert {each.row for each in found["no_room"]} == {"rows.jsonl row 1", "rows.jsonl row 2"}
    assert "control_token" in found and "special_token" not in found


def test_a_template_that_never_ends_is_told(write: Write, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    assert "end_token" not in lint(write, FINE, tokenizer=tiny_tokenizer).found
    endless = {"template": "custom", "template_args": {"user": "Q: {{content}}\nA: ", "assistant": "{{content}}\n"}}
    findings = lint(write, FINE, tokenizer=tiny_tokenizer, **endless)
    [found] = findings.found["end_token"]
    assert (found.row, found.detail) == ("", "template custom")
    assert "error: end_token: answers end without a token that stops them: template custom" in findings.lines(5)


def test_a_template_that_refuses_rows_is_told(write: Write, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    row = talk("Hi", '{"name": "look", "arguments": {}}', "here", "There.", roles="ufoa", tools=TOOLS)
    found = lint(write, [row], tokenizer=tiny_tokenizer, template="auto").found
    assert "leaves out the function turn" in found["refused"][0].detail


def test_pairs(write: Write) -> None:
    rows = [
        {"q": "Why is it so?", "good": "Because.", "bad": "Because. "},
        {"q": "Why?", "good": "So.", "bad": "I am {{name}}."},
        {"q": "Whence?", "good": "From there.", "bad": "From here."},
    ]
    found = lint(write, rows, PAIRS).found
    assert {check: [each.row[-1] for each in rows] for check, rows in found.items()} == {
        "same_answers": ["1"],
        "placeholder": ["2"],
    }


def test_plain_texts(write: Write) -> None:
    rows = [{"text": "Once upon a time."}, {"text": "Once upon  a time."}, {"text": "cafÃ©"}, {"text": " "}]
    info = {"file_name": "rows.jsonl", "columns": {"prompt": "text"}}
    found = lint(write, rows, info, stage="pt").found
    assert {check: [each.row[-1] for each in rows] for check, rows in found.items()} == {
        "duplicate": ["2"],
        "wrong_encoding": ["3"],
        "empty": ["4"],
    }


def test_judged_answers_with_other_labels_are_no_duplicates(write: Write) -> None:
    info = {"file_name": "rows.jsonl", "formatting": "openai", "columns": {"messages": "messages", "kto_tag": "label"}}
    rows = [talk("Hi there", "Hello.", label=label) for label in (True, False, True)]
    found = lint(write, rows, info).found
    assert [each.row[-1] for each in found["duplicate"]] == ["3"]


def test_every_check_of_the_table_is_tested() -> None:
    tested = {check for check, _, _ in WRONG} | {
        "duplicate", "other_answers", "near_duplicate", "overlap", "near_overlap", "rare_language", "too_long",
        "no_room", "control_token", "end_token", "refused", "same_answers",
    }  # fmt: skip
    assert tested == set(CHECKS)
    severities = [check.severity for check in CHECKS.values()]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def fixed(write: Write, info: dict[str, Any] = OPENAI, **more: Any) -> tuple[list[Any], Mended]:
    """The rows that `lint` wrote last, mended."""
    folder = write("dataset_info.json", {"rows": info, "eval": {**info, "file_name": "eval.jsonl"}}).parent
    [dataset] = find_datasets(["rows"], str(folder))
    done = Mended()
    rows = list(mended(dataset, dataset.source.read(), done, **{"placeholders": {}, **more}))
    assert done.written == len(rows)
    return rows, done


MENDED = [name for name, check in CHECKS.items() if check.mended]


def test_what_is_mended_is_not_found_again(write: Write) -> None:
    rows = [
        *FINE,
        *(row for _, row, _ in WRONG),
        FINE[0],
        talk("Hi", "{'name': 'look', 'arguments': {}}", roles="uf", tools=TOOLS),
    ]
    evaluated = [FINE[3]]
    before = lint(write, rows, evaluated=evaluated)
    folder = write("eval.jsonl", json.dumps(FINE[3]) + "\n").parent
    asked = prompts(find_datasets(["eval"], str(folder)), "sft")
    mended_rows, done = fixed(write, placeholders={"name": "Ada"}, evaluated=asked)
    after = lint(write, mended_rows, evaluated=evaluated)
    assert {"empty", "role_order", "tools", "duplicate", "overlap", "wrong_encoding", "placeholder"} <= set(
        before.found
    )
    left = {check for check in after.found if check in MENDED}
    assert left <= {"placeholder", "special_token"}  # words for which nobody gave any, and tokens inside a text
    assert after.count("error") == 0
    assert fixed(write, placeholders={"name": "Ada"}, evaluated=asked)[0] == mended_rows
    assert done.left_out["duplicate"] == 2  # one was, one became one when it was mended
    assert done.changed["tools"] == 1 and done.changed["role_order"] == 1


def test_rows_in_order_are_written_as_they_are(write: Write) -> None:
    rows = [{**row, "id": number, "score": 0.5} for number, row in enumerate(FINE)]
    lint(write, rows)
    assert fixed(write) == (rows, Mended(written=len(rows)))


def test_ends_that_nobody_answers_are_removed(write: Write) -> None:
    lint(write, [talk("sys", "Hello", "Hi", "Hello.", "And?", roles="sauau")])
    [row], _ = fixed(write)
    assert [message["content"] for message in row["messages"]] == ["sys", "Hi", "Hello."]


def test_findings_are_told_with_rows_and_counts(write: Write) -> None:
    findings = lint(write, [talk("Hi there", "Hello.")] * 4 + [talk("Hi", "")])
    assert findings.lines(2) == [
        "error: empty: an empty question, answer or text: 1 row",
        "    rows.jsonl row 5: empty answer",
        "warning: duplicate: says the same as an earlier row: 3 rows",
        "    rows.jsonl row 2: as rows.jsonl row 1",
        "    rows.jsonl row 3: as rows.jsonl row 1",
        "    and 1 more",
        "5 rows (rows): 1 error, 1 warning",
    ]
    told = findings.as_dict()
    assert (told["errors"], told["warnings"], told["notes"]) == (1, 1, 0)
    assert told["findings"][1]["rows"][2] == {"row": "rows.jsonl row 4", "detail": "as rows.jsonl row 1"}
