"""Two processes agree on the best checkpoint, on answers given while training, and on when to give up, and go on with all of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import assert_equal
from ranks import Ranks
from safetensors.torch import load_file

from tunesmith.jobs import checkpoints

Words = Callable[..., list[Any]]

ANSWERED = {
    "val_size": 7, "eval_steps": 1, "metrics": "loss,accuracy,f1", "do_sample": False, "max_new_tokens": 6,
    "save_best_model": True, "metric_for_best_model": "f1", "finetuning_type": "full", "lr_scheduler_type": "constant",
}  # fmt: skip
"""Seven rows are no even share for two."""


@pytest.fixture
def words(tiny_model: Path, talks: Path) -> Words:
    def write(**changes: Any) -> list[Any]:
        options = {
            "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": talks, "template": "qwen", "output_dir": "run",
            "per_device_train_batch_size": 4, "learning_rate": 1e-2, "max_steps": 8, "save_steps": 3, "compute_type": "fp32", "logging_steps": 1,
            "disable_tqdm": True, "nproc_per_node": 2, "device": "cpu",
        }  # fmt: skip
        return ["train", *(f"{name}={value}" for name, value in (options | changes).items())]

    return write


def state(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "trainer_state.json").read_text())
    return found


def logged(run: Path, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in state(run)["log_history"] if name in row}


def test_the_best_by_answers_is_kept_and_is_as_with_one_process(ranks: Ranks, tmp_path: Path, words: Words) -> None:
    ended = ranks.run(tmp_path, *words(save_total_limit=1, **ANSWERED))
    assert ended.code == 0, ended.said
    run = tmp_path / "run"
    found = logged(run, "eval_f1")
    assert [*found] == [*range(1, 9)] and max(found.values()) > 0, found
    best = min(step for step, value in found.items() if value == max(found.values()))
    assert best < 8, found
    assert (state(run)["best_global_step"], state(run)["best_metric"]) == (best, found[best])
    assert {checkpoints.step_of(each) for each in checkpoints.every(run)} == {best, 8}
    final, kept = (load_file(each / "model.safetensors") for each in (run, run / f"checkpoint-{best}"))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in final.items())
    results = json.loads((run / "eval_results.json").read_text())
    assert results["eval_f1"] == found[best] and 0 < results["eval_accuracy"] < 1
    alone = ANSWERED | {"nproc_per_node": 1, "model_name_or_path": run, "output_dir": "alone", "save_best_model": False}
    ended = ranks.run(tmp_path, *words(do_train=False, do_eval=True, **alone))
    assert ended.code == 0, ended.said
    by_one = json.loads((tmp_path / "alone" / "eval_results.json").read_text())
    assert (by_one["eval_f1"], by_one["eval_accuracy"]) == (results["eval_f1"], results["eval_accuracy"])
    assert by_one["eval_loss"] == pytest.approx(results["eval_loss"])


def test_both_give_up_at_once_and_a_run_goes_on_as_if_it_had_not_stopped(
    ranks: Ranks, tmp_path: Path, words: Words
) -> None:
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    # So small a rate changes no answer: nothing is ever better than the first.
    never_better = ANSWERED | {"learning_rate": 1e-9, "early_stopping_steps": 3, "save_steps": 2}
    for folder, stops in ((straight, [8]), (parted, [2, 8])):
        folder.mkdir()
        for steps in stops:
            ended = ranks.run(folder, *words(**never_better | {"max_steps": steps}))
            assert ended.code == 0, ended.said
        assert "Stopped early, after step 4 of 8" in ended.said
        assert (state(folder / "run")["global_step"], state(folder / "run")["best_global_step"]) == (4, 1)
    assert_equal(straight / "run", parted / "run")
