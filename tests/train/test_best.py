"""The best checkpoint is known, kept, made the final model, and outlives an interruption; a run that finds nothing better ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.config.train import TrainConfig
from tunesmith.jobs import checkpoints
from tunesmith.log import OptionError
from tunesmith.train.judging.best import Best, best_of
from tunesmith.train.position import Position
from tunesmith.train.session import Session

Train = Callable[..., Path]
EVALUATED = {"val_size": 5, "max_steps": 8, "save_steps": 4, "eval_steps": 1, "save_best_model": True}


def notes(best: Best, *values: float) -> tuple[list[bool], Position]:
    position, told = Position(), []
    for step, value in enumerate(values, start=1):
        position.step, position.evaluation = step, {best.names[0]: value}
        told.append(best.note(position, epoch=step / 2))
    return told, position


def test_the_best_is_the_lowest_loss_and_the_highest_accuracy() -> None:
    loss = Best("eval_loss", ("eval_loss",), greater=False, patience=2, keeps=True)
    told, position = notes(loss, 2.0, float("nan"), 1.5, 1.5, 1.6)
    assert told == [True, False, True, False, False]
    assert (position.best_step, position.best_value, position.best_epoch, position.unimproved) == (3, 1.5, 1.5, 2)
    assert loss.is_given_up(position)
    accuracy = Best("eval_accuracy", ("eval_accuracy",), greater=True, patience=None, keeps=True)
    told, position = notes(accuracy, 0.5, 0.4, 0.6)
    assert told == [True, False, True] and not accuracy.is_given_up(position)


def found(metric: str, *sets: str, metrics: list[Any] | None = None, **options: Any) -> Best:
    train = TrainConfig(
        save_best_model=True, metric_for_best_model=metric, metrics=metrics or ["loss", "ppl"], **options
    )
    best = best_of(train, sets or ("eval",))
    assert best is not None
    return best


def test_metrics_are_found_by_their_names() -> None:
    assert found("loss").names == found("eval_loss").names == ("eval_loss",)
    assert not found("ppl").greater and found("ppl").names == ("eval_perplexity",)
    assert found("accuracy", metrics=["accuracy"]).greater
    assert found("eval_loss", "sums", "birds").names == ("eval_sums_loss", "eval_birds_loss")
    assert found("eval_birds_loss", "sums", "birds").names == ("eval_birds_loss",)
    with pytest.raises(OptionError, match="eval_accuracy is not evaluated; add accuracy to metrics"):
        found("accuracy")
    with pytest.raises(OptionError, match=r"'eval_los' is not evaluated; did you mean 'eval_loss'\?"):
        found("eval_los")
    with pytest.raises(OptionError, match="evaluated are eval_sums_loss, eval_sums_perplexity, eval_birds_loss"):
        found("eval_cats_loss", "sums", "birds")
    assert best_of(TrainConfig(), ["eval"]) is None


def test_greater_is_better_is_obeyed_and_doubted(capsys: pytest.CaptureFixture[str]) -> None:
    assert found("eval_loss", greater_is_better=True).greater
    assert "loss is better when it is lower; going by True as written" in capsys.readouterr().err
    assert not found("eval_loss", greater_is_better=False).greater
    assert capsys.readouterr().err == ""


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`losses(3, 1, 2)`: what evaluation finds at steps 1, 2, 3, whatever it computes."""

    def prescribe(*values: float) -> None:
        evaluate = Session.evaluate

        def prescribed(self: Session) -> dict[str, float]:
            return evaluate(self) | {"eval_loss": values[self.position.step - 1]}

        monkeypatch.setattr(Session, "evaluate", prescribed)

    return prescribe


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "trainer_state.json").read_text())
    return found


def steps(run: Path) -> list[int]:
    return [checkpoints.step_of(each) for each in checkpoints.every(run)]


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one / "adapter_model.safetensors"), load_file(other / "adapter_model.safetensors")
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_best_checkpoint_is_kept_and_is_the_final_model(
    train: Train, losses: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    losses(5, 4, 2, 3, 3, 3, 3, 2.5)
    run = train("run", save_total_limit=1, **EVALUATED)
    assert steps(run) == [3, 8]
    assert same(run, run / "checkpoint-3") and not same(run, run / "checkpoint-8")
    assert (state(run)["best_metric"], state(run)["best_global_step"]) == (2, 3)
    assert state(run)["best_model_checkpoint"] == str(run / "checkpoint-3")
    assert json.loads((run / "eval_results.json").read_text())["eval_loss"] == 2
    assert "Best eval_loss: 2, at step 3; that is the final model." in capsys.readouterr().out
    latest = train("latest", **EVALUATED | {"save_best_model": False, "eval_steps": 4})
    assert same(latest, run / "checkpoint-8")
    kept = train("kept", save_only_model=True, **EVALUATED | {"save_strategy": "no"})
    assert steps(kept) == [3] and same(kept, run)


def test_a_run_that_finds_nothing_better_ends(
    train: Train, losses: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    losses(5, 4, 4, 4.5, 3, 2, 1, 0)
    run = train("run", **EVALUATED | {"early_stopping_patience": 2, "save_best_model": False})
    assert steps(run) == [4] and state(run)["global_step"] == 4 and state(run)["best_global_step"] == 2
    told = "Stopped early, after step 4 of 8: 2 evaluations in a row found no better eval_loss."
    assert told in capsys.readouterr().out
    last = train("last", **EVALUATED | {"early_stopping_steps": 3, "save_strategy": "epoch"})
    assert state(last)["global_step"] == 8 and same(last, last / "checkpoint-8")


@pytest.mark.parametrize("at", [2, 3, 5])
def test_going_on_knows_the_best_and_how_long_ago_it_was(train: Train, losses: Callable[..., None], at: int) -> None:
    losses(5, 4, 2, 3, 3, 3, 1, 1)
    options = EVALUATED | {"early_stopping_steps": 3, "save_steps": 1, "save_total_limit": 2}
    straight = train("straight", **options)
    assert steps(straight) == [3, 5, 6]
    broken = train("broken", **options | {"max_steps": at, "lr_scheduler_type": "constant"})
    assert steps(broken)[-1] == at
    again = train("broken", **options | {"lr_scheduler_type": "constant"})
    assert steps(again) == [3, 5, 6]
    keys = ("best_metric", "best_global_step", "global_step")
    assert [state(again)[key] for key in keys] == [state(straight)[key] for key in keys] == [2, 3, 6]
    assert same(again, again / "checkpoint-3")


def test_a_branch_brings_the_best_checkpoint_along(
    train: Train, losses: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    losses(5, 1, 2, 3, 3, 3, 3, 3)
    run = train("run", **EVALUATED)
    branch = train("branch", resume_from_checkpoint=run / "checkpoint-4", **EVALUATED)
    assert "checkpoint-2 is the best so far and was copied into" in capsys.readouterr().err
    assert steps(branch) == [2, 8] and same(branch, run / "checkpoint-2")
    checkpoints.remove(run / "checkpoint-2")
    alone = train("alone", resume_from_checkpoint=run / "checkpoint-4", **EVALUATED)
    assert "was the best so far and is not whole any more" in capsys.readouterr().err
    assert state(alone)["best_metric"] == 3 and steps(alone) == [5, 8]
