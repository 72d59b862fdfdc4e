"""A run that is stopped and goes on ends as one that was never stopped: weights, optimizer, random states and logs."""

import random
from pathlib import Path
from typing import Any

import pytest
from exact import Run, assert_equal, last_step, stopped

Options = dict[str, Any]

PACKED: Options = {"packing": True, "cutoff_len": 256, "gradient_accumulation_steps": 1}
STREAMED: Options = {"streaming": True, "max_steps": 6, "buffer_size": 8, "cutoff_len": 256}
"""No row is as long, but a step's memory is measured with rows that are."""

VARIED = '{"copies": 2, "paraphrase": [["the cat", "a cat"], ["blue", "small"]]}'

AXES: dict[str, dict[str, Options]] = {
    "method": {
        "full": {"finetuning_type": "full"},
        "lora": {"lora_rank": 4},
        "lora with dropout": {"lora_dropout": 0.3},
        "dora": {"use_dora": True, "lora_dropout": 0.1},
        "pissa": {"lora_init": "pissa"},
        "lora and heads": {"additional_target": "lm_head", "lora_learning_rate": 1e-3},
        "lora+": {"loraplus_lr_ratio": 16, "lora_target": "attention"},
        "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "freeze_extra_modules": "norm"},
    },
    "optimizer": {
        name: {"optim": name}
        for name in (
            "adamw_torch",
            "adam",
            "adamax",
            "nadam",
            "radam",
            "adafactor",
            "adagrad",
            "adadelta",
            "rmsprop",
            "rprop",
            "asgd",
        )
    }
    | {
        "sgd, momentum": {"optim": "sgd", "optim_args": '{"momentum": 0.9, "nesterov": true}'},
        "amsgrad": {"optim_args": '{"amsgrad": true}', "weight_decay": 0.1},
        "rmsprop, centered": {"optim": "rmsprop", "optim_args": '{"centered": true, "momentum": 0.5}'},
    },
    "schedule": {
        "linear": {"warmup_steps": 0.3},
        "cosine": {"lr_scheduler_type": "cosine", "warmup_steps": 2},
        "constant": {"lr_scheduler_type": "constant"},
        "polynomial": {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": '{"power": 2.0}'},
        "restarts": {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": '{"num_cycles": 2}'},
        "inverse_sqrt": {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 2},
        "stable, then decay": {
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": '{"num_decay_steps": 3}',
            "warmup_steps": 1,
        },
    },
    "loss": {
        "cross-entropy": {},
        "dft": {"loss": "dft"},
        "eaft": {"loss": "eaft"},
        "asft": {"loss": "asft"},
        "smoothed": {"label_smoothing_factor": 0.1},
        "noise": {"neftune_noise_alpha": 5},
    },
    "rows": {
        "shuffled": {},
        "in order": {"disable_shuffling": True},
        "of like length": {"batching": "length_grouped"},
        "by tokens": {"batching": "token_budget", "cutoff_len": 128, "per_device_train_batch_size": 2},
        "packed": PACKED,
        "contaminated": PACKED | {"packing": "contaminated"},
        "padded": {"disable_speedups": "no_padding"},
        "one by one": {"disable_speedups": "merged_batches", "per_device_train_batch_size": 1},
        "some held out": {"val_size": 3, "eval_steps": 2},
        "another seed": {"data_seed": 7, "max_samples": 17},
        "varied": {"data_augmentation": True, "augment": VARIED, "val_size": 3, "eval_steps": 2},
        "streamed, varied": STREAMED | {"data_augmentation": True, "augment": VARIED},
        "interleaved": {"dataset": "talk,more", "mix_strategy": "interleave_over", "num_train_epochs": 1},
        "streamed": STREAMED,
        "streamed in order": STREAMED | {"disable_shuffling": True},
        "streamed, packed": STREAMED | PACKED,
        "streamed, by tokens": STREAMED
        | {"batching": "token_budget", "cutoff_len": 128, "per_device_train_batch_size": 2},
        "streamed, two processes prepare": STREAMED | {"preprocessing_num_workers": 2, "preprocessing_batch_size": 2},
        "streamed, held out": STREAMED | {"val_size": 3, "eval_steps": 0.3},
        "streamed, interleaved": STREAMED
        | {"dataset": "talk,more", "mix_strategy": "interleave_once", "interleave_probs": "0.7,0.3"},
        "plain text": {"stage": "pt", "dataset": "text", "cutoff_len": 32},
    },
    "arithmetic": {
        "fp32": {},
        "bf16": {"compute_type": "bf16"},
        "pure bf16": {"compute_type": "pure_bf16"},
        "no clipping": {"max_grad_norm": 0},
        "plain layers": {"disable_speedups": "fused_loss,fused_adapters,lighter_layers,kept_memory,loading_ahead"},
        "plain attention": {"flash_attn": "disabled"},
    },
    "checkpointing": {
        "none": {},
        "true": {"gradient_checkpointing": True},
        "auto": {"gradient_checkpointing": "auto"},
        "selective": {"gradient_checkpointing": "selective"},
        "offload": {"gradient_checkpointing": "offload"},
    },
    "model": {"plain": {}, "with dropout": {"model_name_or_path": "DROPPING"}},
    "workers": {"none": {}, "three": {"dataloader_num_workers": 3}},
    "logging": {
        "every step": {},
        "every second": {"logging_steps": 2},
        "every third, and the first": {"logging_steps": 3, "logging_first_step": True},
        "a fraction": {"logging_steps": 0.3, "include_num_input_tokens_seen": True},
        "seldom": {"logging_steps": 100, "logging_first_step": True},
    },
}
"""What a run can be made of; a case takes one of each."""

SAMPLE = 2
"""Cases of the short test."""

CASES = 52
"""Cases of the long one: with so many, each option of an axis is met twice or more."""


@pytest.fixture(scope="session")
def dropping(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a dropout of its own, in its attention."""
    import json
    import shutil

    folder = tmp_path_factory.mktemp("dropping") / "qwen2"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.2}))
    return folder


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams pass the ends of several groups of rows in six steps."""
    monkeypatch.setattr("tunesmith.data.streaming.stream.GROUP_ROWS", 5)
    monkeypatch.setattr("tunesmith.data.streaming.stream.FILLED_GROUP_ROWS", 13)


def case(number: int, dropping: Path) -> tuple[list[str], Options]:
    """What case `number` is made of: on each axis its own walk through all that is there, so that no choice is rare."""
    names, made = [], Options()
    for place, (axis, choices) in enumerate(AXES.items()):
        order = list(choices)
        random.Random(f"{axis} {number // len(order)}").shuffle(order)
        name = order[(number + place) % len(order)]
        names.append(f"{axis}: {name}")
        speedups = [each["disable_speedups"] for each in (made, choices[name]) if "disable_speedups" in each]
        made |= choices[name]
        if speedups:
            made["disable_speedups"] = ",".join(speedups)
    if made.get("model_name_or_path"):
        made["model_name_or_path"] = dropping
    if made.get("loss") == "asft" and made.get("lora_init") == "pissa":
        del made["loss"]  # it compares with a base that PiSSA changes
    return names, made


def stop_and_go_on(run: Run, tmp_path: Path, made: Options, draw: random.Random) -> None:
    """The run, and the same one stopped twice at random: killed, and by Ctrl-C."""
    saving = {"save_steps": draw.choice([1, 2, 3])}
    straight = run("straight", **saving | made)
    for kill in (True, False):
        name = "killed" if kill else "asked to stop"
        # Ctrl-C lets the next step finish, which must not be the last.
        with stopped(draw.randint(1, last_step(straight) - (1 if kill else 2)), kill=kill):
            run(name, code=None if kill else 130, **saving | made)
        assert_equal(straight, run(name, **saving | made))


@pytest.mark.parametrize("number", range(SAMPLE))
def test_a_stopped_run_ends_as_one_that_was_not(run: Run, tmp_path: Path, dropping: Path, number: int) -> None:
    _, made = case(number, dropping)
    stop_and_go_on(run, tmp_path, made, random.Random(number))


@pytest.mark.parametrize("rows", ["varied", "streamed, varied"])
def test_a_stopped_run_goes_on_with_the_same_variations(run: Run, tmp_path: Path, rows: str) -> None:
    stop_and_go_on(run, tmp_path, AXES["rows"][rows] | {"lora_dropout": 0.2}, random.Random(rows))


@pytest.mark.reliability
@pytest.mark.parametrize("number", range(SAMPLE, CASES))
def test_every_kind_of_run_ends_as_if_it_had_not_been_stopped(
    run: Run, tmp_path: Path, dropping: Path, number: int
) -> None:
    _, made = case(number, dropping)
    stop_and_go_on(run, tmp_path, made, random.Random(number))


WHOLE: Options = {"finetuning_type": "full", "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
WITH_MEMORY: dict[str, Options] = {
    "badam": WHOLE | {"optim": "badam", "badam_switch_interval": 2, "badam_switch_mode": "random"},
    "schedule-free": WHOLE | {"optim": "schedule_free_adamw", "val_size": 5, "eval_steps": 2},
    "plateau": {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": '{"factor": 0.5, "patience": 0}',
                "val_size": 5, "eval_steps": 1, "learning_rate": 0.3},
    "galore": WHOLE | {"optim": "galore_adamw", "galore_update_interval": 2, "galore_rank": 4},
    "apollo": WHOLE | {"optim": "apollo_adamw", "apollo_update_interval": 2, "weight_decay": 0.1},
    "muon": {"optim": "muon", "weight_decay": 0.1},
    "adam-mini": WHOLE | {"optim": "adam_mini"},
    "8 bits": WHOLE | {"optim": "adamw_8bit", "weight_decay": 0.1},
    "greedy": {"lr_scheduler_type": "greedy", "lr_scheduler_kwargs": '{"min_lr": 1e-5, "patience": 0}', "val_size": 5,
               "eval_steps": 1},
}  # fmt: skip
"""Optimizers and schedules that remember more than Adam, of which the first are tried each time."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.reliability] if place > 2 else [])
        for place, name in enumerate(WITH_MEMORY)
    ],
)
def test_optimizers_and_schedules_that_remember_more(run: Run, tmp_path: Path, name: str) -> None:
    stop_and_go_on(run, tmp_path, WITH_MEMORY[name], random.Random(name))
