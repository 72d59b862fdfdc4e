"""Learning rates: step for step those of Transformers, and what is refused."""

import json

import pytest
import torch
from transformers.optimization import get_scheduler
from transformers.trainer_utils import SchedulerType

from tunesmith.config.optim import OptimConfig
from tunesmith.log import OptionError
from tunesmith.optim.schedules import FOLLOWING, FollowsLoss, build, warmup_steps

ARGUMENTS = {
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"lr_end": 1e-6, "power": 2.0},
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2},
    "warmup_stable_decay": {"num_decay_steps": 6, "min_lr_ratio": 0.1},
    "inverse_sqrt": {"timescale": 5},
}
BUILT = [kind.value for kind in SchedulerType if kind not in FOLLOWING]


def optimizer() -> torch.optim.Optimizer:
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    return torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 8e-3}], lr=1e-3)


def course(schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[list[float]]:
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr())
        schedule.optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("warmup", [0, 4, 0.25])
def test_every_rate_is_transformers(name: str, warmup: float) -> None:
    arguments = ARGUMENTS.get(name, {})
    cfg = OptimConfig(lr_scheduler_type=name.upper(), warmup_steps=warmup, lr_scheduler_kwargs=arguments)
    theirs = get_scheduler(
        name, optimizer(), num_warmup_steps=5 if warmup == 0.25 else int(warmup), num_training_steps=20,
        scheduler_specific_kwargs=arguments,
    )  # fmt: skip
    assert course(build(optimizer(), cfg, 20), 24) == course(theirs, 24)


@pytest.mark.parametrize("name", BUILT)
def test_state_goes_through_json(name: str) -> None:
    cfg = OptimConfig(lr_scheduler_type=name, warmup_steps=3, lr_scheduler_kwargs=ARGUMENTS.get(name, {}))
    straight = build(optimizer(), cfg, 20)
    course(straight, 7)
    again = build(optimizer(), cfg, 20)
    again.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    assert course(again, 9) == course(straight, 9)


@pytest.mark.parametrize(
    ("name", "arguments", "rates"),
    [
        # Worse once is borne; worse twice halves the rate.
        ("reduce_lr_on_plateau", {"factor": 0.5, "patience": 1}, [1, 1, 1, 0.5, 0.5, 0.25]),
        # Better twice raises it, worse twice lowers it.
        ("greedy", {"factor": 0.5, "patience": 1, "min_lr": 1e-5}, [1, 2, 2, 1, 1, 0.5]),
    ],
)
def test_following_the_evaluation_loss(name: str, arguments: dict, rates: list[float]) -> None:
    cfg = OptimConfig(lr_scheduler_type=name, lr_scheduler_kwargs=arguments)
    schedule, found = build(optimizer(), cfg, 20), []
    assert isinstance(schedule, FollowsLoss)
    for number, loss in enumerate([3.0, 2.0, 2.5, 2.5, 2.5, 2.5]):
        if number == 3:  # as a run that goes on from here
            saved = (
                json.loads(json.dumps(schedule.state_dict())),
                [group["lr"] for group in schedule.optimizer.param_groups],
            )
            schedule = build(optimizer(), cfg, 20)
            assert isinstance(schedule, FollowsLoss)
            schedule.load_state_dict(saved[0])
            for group, rate in zip(schedule.optimizer.param_groups, saved[1], strict=True):
                group["lr"] = rate
        schedule.optimizer.step()
        schedule.step()
        schedule.follow(loss)
        found.append(schedule.get_last_lr())
    assert found == [pytest.approx([rate * 1e-3, rate * 8e-3]) for rate in rates]


def test_warmup_as_a_fraction_is_rounded_up() -> None:
    assert [warmup_steps(w, 25) for w in (0, 0.1, 0.5, 1, 7)] == [0, 3, 13, 1, 7]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr_scheduler_type": "cosin"}, "did you mean 'cosine'"),
        ({"lr_scheduler_type": "greedy"}, "the schedule greedy needs min_lr"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"pacience": 2}},
            "did you mean 'patience'",
        ),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "needs num_decay_steps"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "needs min_lr or min_lr_rate"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "linear has no argument 'num_cycles'; it takes none"),
        ({"lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {"x": 2}}, "it takes none"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"powr": 2}}, "did you mean 'power'"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}}, "refuses its arguments"),
    ],
)
def test_refusals(options: dict, said: str) -> None:
    with pytest.raises(OptionError, match="lr_scheduler") as refusal:
        build(optimizer(), OptimConfig(**options), 20)
    assert said in str(refusal.value)


def test_a_warmup_without_effect_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    build(optimizer(), OptimConfig(lr_scheduler_type="cosine", warmup_steps=20), 20)
    assert "warning: warmup_steps: 20 steps of warmup in a run of 20" in capsys.readouterr().err
    build(optimizer(), OptimConfig(warmup_steps=30), 20)
    assert "warning: warmup_steps: 30 steps" in capsys.readouterr().err
