"""`tunesmith eval` on tiny models: the harness's numbers, the base beside the tuned model, and mistakes."""

import json
import math
from pathlib import Path

import pytest
import torch
from adapted import adapt
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.evaluation import command
from tunesmith.evaluation.command import eval_command
from tunesmith.log import DataError, MissingExtra, OptionError

ROWS = [
    ("What is the Sun?", ["a planet", "a star", "a moon", "a comet"], "B", "sky"),
    ("Which is nearest to the Sun?", ["Venus", "Mars", "Mercury", "Earth"], "C", "sky"),
    ("How many months has a year?", ["ten", "twelve", "seven", "four"], "B", "time"),
    ("How many days has a week?", ["seven", "eight", "five"], "A", "time"),
]
DEV = [("What turns around the Earth?", ["the Moon", "the Sun", "Mars", "a star"], "A", "sky")]
PLAIN = ["--compute_type", "fp32", "--disable_tqdm", "true"]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    for name, rows in (("sky.jsonl", ROWS), ("sky_dev.jsonl", DEV)):
        lines = [dict(zip(("question", "choices", "answer", "subject"), row, strict=True)) for row in rows]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path / "sky.jsonl"


def run(*words: object) -> int:
    return eval_command([*map(str, words), *PLAIN])


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_likeliest_letter(tiny_model, task, tmp_path, capsys):
    pytest.importorskip("lm_eval")
    assert run(tiny_model, "--task", task, "--save_dir", tmp_path / "out", "--batch_size", "3") == 0
    out = capsys.readouterr().out
    told = results(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    about = "The following are multiple choice questions (with answers) about {}.\n\n"
    for row, (question, choices, answer, subject) in zip(told["rows"], ROWS, strict=True):
        shown = DEV if subject == "sky" else []
        text = about.format(subject)
        for asked, among, right, _ in [*shown, (question, choices, "", "")]:
            listed = [f"{letter}. {choice}" for letter, choice in zip("ABCD", among, strict=False)]
            text += "\n".join([asked, *listed, "Answer:"]) + (f" {right}\n\n" if right else "")
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1].log_softmax(-1)
        chances = []
        for letter in "ABCD"[: len(choices)]:
            ids = tokenizer(text + f" {letter}")["input_ids"][len(tokenizer(text)["input_ids"]) :]
            with torch.no_grad():
                whole = model(**tokenizer(text + f" {letter}", return_tensors="pt")).logits[0].log_softmax(-1)
            chances.append(sum(float(whole[place - len(ids) - 1, token]) for place, token in enumerate(ids)))
        assert math.isfinite(float(logits.max()))
        assert row["said"] == "ABCD"[max(range(len(choices)), key=chances.__getitem__)]
        assert row["value"] == float(row["said"] == answer)
    whole = told["results"][0]
    assert whole["rows"] == 4 and whole["value"] == sum(row["value"] for row in told["rows"]) / 4
    assert [entry["subject"] for entry in told["results"]] == ["", "sky", "time"]
    assert "sky" in out and "95 % interval" in out
    with pytest.raises(OptionError, match=r"results\.json is there already"):
        run(tiny_model, "--task", task, "--save_dir", tmp_path / "out")


def test_a_written_template_makes_questions_turns_of_a_chat(tiny_model, task, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    from tunesmith.evaluation import harness

    asked: list[str] = []
    once = harness._Asked._loglikelihood_tokens

    def seen(self, requests, **more):
        asked.extend(self.tokenizer.decode(ids) for _, ids, _ in requests)
        return once(self, requests, **more)

    monkeypatch.setattr(harness._Asked, "_loglikelihood_tokens", seen)
    assert run(tiny_model, "--task", task, "--max_samples", "1", "--task_lang", "zh", "--template", "chatml") == 0
    assert asked[0] == (
        "<|im_start|>system\n以下是关于sky的单项选择题，请直接给出正确答案的选项。\n\n<|im_end|>\n"
        "<|im_start|>user\nWhat turns around the Earth?\nA. the Moon\nB. the Sun\nC. Mars\nD. a star\n答案：<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nWhat is the Sun?\nA. a planet\nB. a star\nC. a moon\nD. a comet\n答案：<|im_end|>\n"
        "<|im_start|>assistant"  # the harness counts the line's end as the answer's
    )
    assert len(asked) == 4 + 4  # one question of each subject, with four choices


def test_questions_that_are_too_long_are_told(tiny_model, task, capsys):
    pytest.importorskip("lm_eval")
    long = {"question": "Why? " * 300, "choices": ["a", "b"], "answer": 0}
    task.write_text(json.dumps(long) + "\n", encoding="utf-8")
    assert run(tiny_model, "--task", task) == 0
    assert "warning: n_shot: 1 prompts are longer than the 512 tokens" in capsys.readouterr().err


def test_the_base_is_the_adapter_switched_off(tiny_model, tmp_path, repo, capsys):
    tuned = adapt(tiny_model, tmp_path / "tuned")
    words = ["--eval_dataset", "identity,small_talk", "--dataset_dir", repo / "data", "--max_samples", "4"]
    words += ["--metrics", "exact_match", "--do_sample", "false", "--max_new_tokens", "3", "--template", "chatml"]
    assert run(tuned, *words, "--compare_base", "--save_dir", tmp_path / "both") == 0
    out = capsys.readouterr().out
    assert run(tiny_model, *words, "--save_dir", tmp_path / "base") == 0
    both, base = results(tmp_path / "both")["results"], results(tmp_path / "base")["results"]
    assert [(entry["task"], entry["metric"]) for entry in both] == [
        ("identity", "loss"), ("small_talk", "loss"), ("identity", "exact_match"), ("small_talk", "exact_match"),
    ]  # fmt: skip
    assert [entry["base"] for entry in both] == pytest.approx([entry["value"] for entry in base], abs=1e-5)
    assert all(entry["value"] != entry["base"] for entry in both if entry["metric"] == "loss")
    assert all(entry["gained"] + entry["lost"] == entry["rows"] for entry in both if entry["metric"] == "loss")
    assert "forgotten" in out or "gained" in out


def test_a_whole_model_is_compared_with_the_one_that_is_named(tiny_model, tiny_llama, task, tmp_path, repo):
    words = ["--dataset", "identity", "--dataset_dir", repo / "data", "--max_samples", "3", "--template", "chatml"]
    assert run(tiny_model, *words, "--compare_base", "--base", tiny_llama, "--save_dir", tmp_path / "two") == 0
    assert run(tiny_llama, *words, "--save_dir", tmp_path / "one") == 0
    (both,), (alone,) = results(tmp_path / "two")["results"], results(tmp_path / "one")["results"]
    assert both["base"] == pytest.approx(alone["value"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "problem", "reason"),
    [
        ([], OptionError, "task: is missing: files of multiple-choice questions"),
        (["--task", "sky.jsonl", "--base", "other"], OptionError, "base_model: needs compare_base: true|--base: "),
        (["--task", "sky.jsonl", "--compare_base"], OptionError, "nothing says which model this one was tuned from"),
        (
            ["--task", "sky.jsonl", "--n_shot", "2"],
            DataError,
            "sky/sky: n_shot asks for 2 solved questions; there are 1",
        ),
        (["--task", "nowhere.csv"], OptionError, r"there is no file or folder 'nowhere\.csv'"),
        (["--task", "sky.jsonl", "--save_dir", "sky.jsonl/out"], OptionError, r"sky\.jsonl/out cannot be made: "),
        (["--task", "sky.jsonl,sky.jsonl"], OptionError, "two tasks are called sky"),
    ],
)
def test_mistakes_are_told_before_a_weight_is_read(tiny_model, task, monkeypatch, words, problem, reason):
    monkeypatch.chdir(task.parent)
    with pytest.raises(problem, match=reason):
        run(tiny_model, *words)


def test_without_the_harness_the_command_to_install_it_is_told(tiny_model, task, monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[eval\]'") as problem:
        run(tiny_model, "--task", task)
    assert problem.value.exit_code == 5


def test_a_hub_that_cannot_be_reached_is_told_before_anything_is_loaded(tiny_model, tmp_path, monkeypatch):
    from tunesmith.evaluation import hub

    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "prepared"))
    monkeypatch.setattr(command, "_require_harness", lambda: None)
    with pytest.raises(
        OptionError, match=r"mmlu_sky: no file or folder here; .* from http://127\.0\.0\.1:9, which cannot"
    ):
        run(tiny_model, "--task", "mmlu_sky")
    assert not hub.constants.HF_HUB_OFFLINE


def test_what_was_fetched_before_is_used_without_a_hub(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    import datasets

    from tunesmith.evaluation import harness, hub

    for module, name in (
        (hub.constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE"), (datasets.config, "HF_DATASETS_OFFLINE"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "datasets--mine").mkdir(parents=True)
    offline = hub.be_offline_unless_reached(["mmlu_sky"])
    assert offline and hub.constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE

    def refuse(*_: object) -> None:
        raise OptionError("nothing there")

    monkeypatch.setattr(harness, "_load", refuse)
    with pytest.raises(OptionError, match="mmlu_sky: the data are not on this machine, and the hub cannot be reached"):
        harness.fetch(["mmlu_sky"], offline)
    with pytest.raises(OptionError, match="nothing there"):
        harness.fetch(["mmlu_sky"], None)
