"""Every evaluation row is answered as the model answers it alone; what is answered outlives a kill; scores are told."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.data.sample import Sample
from tunesmith.generate.batched import Answer, Prompt
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.transformers import TransformersEngine
from tunesmith.train.judging import predict, scores
from tunesmith.train.judging.predict import questions
from tunesmith.train.judging.predictions import PREDICTIONS, Kept, Row

Train = Callable[..., Path]
SHORT = {"do_predict": True, "do_sample": False, "max_new_tokens": 6}
GREEDY = {**SHORT, "do_train": False, "eval_dataset": "talk"}


def lines(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / PREDICTIONS).read_text(encoding="utf-8").splitlines()]


def results(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"{name}_results.json").read_text())
    return found


def test_every_row_is_answered_in_order_as_alone(train: Train, rows: Path, tiny_model: Path) -> None:
    run = train("run", predict_with_generate=True, **GREEDY)
    talk, found = json.loads((rows / "talk.json").read_text()), lines(run)
    assert [row["label"].strip() for row in found] == [row["output"] for row in talk]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    engine = TransformersEngine(model, tokenizer, lambda conversation: [])
    for row, asked in zip(found, talk, strict=True):
        assert row["prompt"].endswith(f"user\n{asked['instruction']}<|im_end|>\n<|im_start|>assistant\n")
        text = engine.text(Sampling())
        tokens = engine.generate([tokenizer(row["prompt"])["input_ids"]], Sampling(max_new_tokens=6))[0]
        assert row["predict"] == "".join([*map(text.add, tokens), text.end()])
    keys = {"bleu-4", "rouge-1", "rouge-2", "rouge-l"}
    timing = {"runtime", "samples_per_second", "steps_per_second"}
    assert results(run, "predict").keys() == {f"predict_{key}" for key in keys | timing}
    assert results(run, "all").keys() >= {*results(run, "predict"), *(f"eval_{key}" for key in keys)}
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("method", ["lora", "full"])
def test_after_training_the_tuned_model_answers(train: Train, method: str) -> None:
    shared = {"val_size": 5, "finetuning_type": method, "lora_target": "all"}
    run = train("run", **shared, **SHORT)
    assert len(lines(run)) == 5
    assert results(run, "all").keys() >= {"train_loss", "eval_loss", "predict_runtime"}
    named = {"adapter_name_or_path": run} if method == "lora" else {"model_name_or_path": run}
    again = train("again", **shared | SHORT | {"do_train": False} | named)
    assert lines(again) == lines(run)
    untuned = train("untuned", **shared | SHORT | {"do_train": False})
    assert [row["predict"] for row in lines(untuned)] != [row["predict"] for row in lines(run)]


def test_options_of_generation_apply(train: Train) -> None:
    first = lines(train("first", **GREEDY | {"do_sample": True, "temperature": 5, "top_p": 1, "top_k": 0}))
    same = lines(train("same", **GREEDY | {"do_sample": True, "temperature": 5, "top_p": 1, "top_k": 0, "per_device_eval_batch_size": 1}))  # fmt: skip
    cold = lines(train("cold", **GREEDY | {"do_sample": True, "temperature": 0}))
    other = lines(train("other", **GREEDY | {"do_sample": True, "temperature": 5, "top_p": 1, "top_k": 0, "seed": 7}))
    assert first == same != other
    assert cold == lines(train("greedy", **GREEDY)) != first
    assert max(len(row["predict"]) for row in lines(train("one", **GREEDY | {"max_new_tokens": 1}))) < max(
        len(row["predict"]) for row in cold
    )


def test_a_stopped_prediction_keeps_what_was_answered_and_goes_on(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, real, asked = lines(train("whole", **GREEDY)), predict.answers, list[int]()

    def watched(engine: Any, prompts: list[Prompt], *args: Any, **more: Any) -> Iterator[Answer]:
        asked[:] = [prompt.number for prompt in prompts]
        for count, answer in enumerate(real(engine, prompts, *args, **more)):
            if count == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield answer

    stop_at = 8
    monkeypatch.setattr(predict, "answers", watched)
    with pytest.raises(AssertionError, match="143"):
        train("run", **GREEDY)
    folder = tmp_path / "run"
    assert not (folder / PREDICTIONS).exists()
    kept = next(folder.glob(".generated_predictions-*"))
    with open(kept, "ab") as file:
        file.write(b'{"row": 20, "pre')  # as a kill may leave it
    assert "8 of 21 rows are answered and kept" in capsys.readouterr().err
    stop_at = -1
    train("run", **GREEDY)
    assert len(asked) == 21 - 8
    assert lines(folder) == whole
    train("run", **GREEDY | {"max_new_tokens": 3})
    assert len(asked) == 21 and lines(folder) != whole


def test_answers_of_other_options_are_not_taken(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "one", rank=0)
    kept.open()
    kept.add(3, "yes")
    assert Kept(tmp_path, "two", rank=0).answers == {}
    other = Kept(tmp_path, "one", rank=1)
    assert other.answers == {3: "yes"}
    other.open()
    other.add(4, "no\n")
    kept.gather()
    assert kept.answers == {3: "yes", 4: "no\n"}
    kept.publish([Row("?", "yes", "是")])
    assert [path.name for path in tmp_path.iterdir()] == [PREDICTIONS]
    assert (tmp_path / PREDICTIONS).read_text(encoding="utf-8") == '{"prompt": "?", "predict": "yes", "label": "是"}\n'


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    train: Train, run_warm: Any, rows: Path, tiny_model: Path, tmp_path: Path
) -> None:
    alone = lines(train("alone", **GREEDY))
    shared = {"model_name_or_path": tiny_model, "dataset_dir": rows, "template": "qwen", "compute_type": "fp32"}
    shared |= {"device": "cpu", "nproc_per_node": 2, "output_dir": tmp_path / "two"}
    done = run_warm("train", *(f"{key}={value}" for key, value in {**shared, **GREEDY}.items()))
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "two") == alone


def test_without_the_packages_answers_are_written_and_the_extra_is_named(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scores, "PACKAGES", ("no_such_package",))
    run = train("run", metrics="loss,exact_match", do_eval=True, **GREEDY)
    assert len(lines(run)) == 21
    assert "pip install 'tunesmith[metrics]'" in capsys.readouterr().err
    assert "predict_bleu-4" not in results(run, "predict")
    assert results(run, "eval").keys() >= {"eval_loss", "eval_exact_match"}


def test_each_set_has_scores_of_its_own_under_its_name(train: Train, rows: Path, tmp_path: Path) -> None:
    talk = json.loads((rows / "talk.json").read_text())
    for name, part in (("sums", talk[:3]), ("birds", talk[3:7])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    sets = f"{tmp_path / 'sums.json'},{tmp_path / 'birds.json'}"
    run = train(
        "run", **GREEDY | {"eval_dataset": sets, "eval_on_each_dataset": True, "metrics": "f1", "do_eval": True}
    )
    assert [row["label"].strip() for row in lines(run)] == [row["output"] for row in talk[:7]]
    assert sum(name.endswith("_f1") for name in results(run, "eval")) == 2
    assert sum(name.endswith("_rouge-l") for name in results(run, "predict")) == 2


def test_what_is_asked_of_a_conversation_is_all_before_its_last_answer() -> None:
    class Two:
        lengths = np.array([7, 4])

        def __len__(self) -> int:
            return 2

        def __getitem__(self, row: int) -> Sample:
            ids = np.arange(10, 10 + int(self.lengths[row]), dtype=np.int32)
            trained = {0: [0, 0, 1, 0, 1, 1, 0], 1: [0, 1, 1, 1]}[row]
            return Sample(ids, np.where(trained, ids, np.int32(-100)))

        def where(self, row: int) -> str:
            return ""

    found = questions({"eval": Two()})
    assert [(one.prompt, one.label) for one in found] == [([10, 11, 12, 13], [14, 15]), ([10], [11, 12, 13])]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"eval_dataset": "[]"}, "do_predict: there are no rows to answer"),
        ({"stage": "pt"}, "do_predict: plain text"),
        ({"train_on_prompt": True}, "train_on_prompt"),
    ],
)
def test_what_cannot_be_answered_is_refused(train: Train, options: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text):
        train("run", **GREEDY | options)
