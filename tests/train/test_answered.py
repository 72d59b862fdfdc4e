"""While a model is trained, evaluation scores its answers: those that it gives when it is asked alone, and nothing else changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Train = Callable[..., Path]
SHORT = {"val_size": 5, "do_sample": False, "max_new_tokens": 6}
GENERATED = {"metrics": "loss,exact_match,f1,bleu,rouge"}
KEYS = {"eval_exact_match", "eval_f1", "eval_bleu-4", "eval_rouge-1", "eval_rouge-2", "eval_rouge-l"}


def results(run: Path, name: str = "eval") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"{name}_results.json").read_text())
    return found


def logged(run: Path, name: str) -> dict[int, float]:
    rows = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return {row["step"]: row[name] for row in rows if name in row}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_each_evaluation_scores_answers_and_training_goes_on_as_without(
    train: Train, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"finetuning_type": method, "max_steps": 4, "eval_steps": 2, "lora_dropout": 0.1} | SHORT
    run = train("run", **options, **GENERATED)
    assert "rows are answered at each evaluation, with at most 6 tokens each" in capsys.readouterr().err
    assert results(run).keys() >= KEYS and "eval_perplexity" not in results(run)
    assert [*logged(run, "eval_rouge-l")] == [2, 4]
    plain = train("plain", **options)
    assert "eval_perplexity" in results(plain)
    for file in plain.glob("*.safetensors"):
        ours, theirs = load_file(file), load_file(run / file.name)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    named = {"adapter_name_or_path": run} if method == "lora" else {"model_name_or_path": run}
    alone = train("alone", **options | GENERATED | named | {"do_train": False, "do_eval": True})
    assert {key: results(alone)[key] for key in KEYS} == {key: results(run)[key] for key in KEYS}


def test_the_best_model_may_be_told_by_answers(train: Train) -> None:
    options = SHORT | {"max_steps": 4, "eval_steps": 1, "learning_rate": 0.05, "metrics": "f1", "save_best_model": True}
    run = train("run", metric_for_best_model="eval_f1", **options)
    state = json.loads((run / "trainer_state.json").read_text())
    values = logged(run, "eval_f1")
    assert state["best_metric"] == max(values.values()) == results(run)["eval_f1"]
    assert state["best_global_step"] == min(step for step, value in values.items() if value == state["best_metric"])


def test_f1_of_labels_and_sets_of_their_own(train: Train, tmp_path: Path) -> None:
    for name, answers in (("moods", ["1", "2", "1"]), ("free", ["3", "3", "4"])):
        rows = [{"instruction": f"{name} {n}", "output": answers[n % 3]} for n in range(12)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    info = {name: {"file_name": f"{name}.json"} for name in ("moods", "free")}
    info["moods"]["labels"] = ["1", "2"]  # type: ignore[assignment]
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    options = SHORT | {
        "dataset": "moods,free", "dataset_dir": tmp_path, "val_size": 8, "eval_on_each_dataset": True, "max_steps": 60,
        "learning_rate": 0.02, "finetuning_type": "full", "metrics": "f1,exact_match", "lr_scheduler_type": "constant",
    }  # fmt: skip
    found = results(train("run", **options))
    assert {"eval_moods_f1", "eval_free_f1", "eval_moods_loss", "eval_free_loss"} <= found.keys()
    assert 0 < found["eval_moods_exact_match"] != found["eval_moods_f1"]


def test_compute_accuracy_and_predict_with_generate_are_metrics(train: Train) -> None:
    run = train("run", max_steps=1, compute_accuracy=True, predict_with_generate=True, eval_num_beams=2, **SHORT)
    assert {"eval_accuracy", "eval_bleu-4", "eval_rouge-l"} <= results(run).keys()
