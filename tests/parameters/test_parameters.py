"""Every parameter of the guide changes what it says it changes, by a plan or a run, and refuses what it can't mean.

What is tried of each is in `guide_rows.py` and `guide_more_rows.py`; runs that look at more than weights are in test_parameters_in_runs.py.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import test_parameters_in_runs
from guide_more_rows import SECOND
from guide_rows import FIRST, NAMES, Options
from guide_runs import Plan, Run, differ, history

from tunesmith.cli import main
from tunesmith.config import compat
from tunesmith.config.load import Loaded, load
from tunesmith.config.schema import fields

GUIDE = r"""llamafactory-cli train --stage sft --do_train True --model_name_or_path {model}
 --preprocessing_num_workers 16 --finetuning_type lora --template default --flash_attn auto --dataset_dir {data}
 --dataset talk --cutoff_len 2048 --learning_rate 5e-05 --num_train_epochs 3.0 --max_samples 100000
 --per_device_train_batch_size 2 --gradient_accumulation_steps 8 --lr_scheduler_type cosine --max_grad_norm 1.0
 --logging_steps 5 --save_steps 100 --warmup_steps 0 --packing False --report_to none
 --output_dir saves\DeepSeek-R1-1.5B-Distill\lora\train_2025-03-26-09-56-13 --bf16 True --plot_loss True
 --trust_remote_code True --ddp_timeout 180000000 --include_num_input_tokens_seen True --optim adamw_torch
 --lora_rank 8 --lora_alpha 16 --lora_dropout 0 --lora_target all"""


TESTS = Path(__file__).parent.parent
ROWS = (*FIRST, *SECOND)


def each(kind: str) -> list[Any]:
    """All cases of a kind, named by their parameter."""
    return [pytest.param(case, id=f"{row.names.split()[0]}-{number}") for row in ROWS
            for number, case in enumerate(getattr(row, kind))]  # fmt: skip


@pytest.fixture
def placed(tmp_path: Path, data: Path, tiny_model: Path, plain_run: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Options with the files and folders that they name in capitals."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "template.jinja").write_text(
        "{% for message in messages %}{{ message['role'] + ' says ' + message['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant says ' }}{% endif %}"
    )
    places = {"FILE": data / "talk.json", "FINISHED": plain_run, "jinja:TEMPLATE": "jinja:template.jinja"}

    def place(options: Options) -> Options:
        if options.get("model_name_or_path") == "REMOTE":
            return options | {"model_name_or_path": test_parameters_in_runs.with_code(tiny_model, tmp_path / "remote")}
        return {name: places.get(value, value) if isinstance(value, str) else value for name, value in options.items()}

    return place


def test_every_name_of_the_guide_is_tried_and_refuses_something() -> None:
    assert [name for row in ROWS for name in row.names.split() if name not in NAMES] == []
    tried = {name: row for row in ROWS for name in row.names.split()}
    assert sorted(tried) == sorted(NAMES)
    for row in ROWS:
        assert row.shown or row.shapes or row.tests, f"nothing shows that {row.names} has an effect"
        assert row.refused, f"nothing is refused by {row.names}"
        code = "".join(inspect.getsource(found) for found in map(_test, row.tests) if found is not None)
        options = [name for case in (*row.shown, *row.refused) for name in case[0]]
        options += [name for case in (*row.shapes, *row.keeps) for name in case]
        for name in row.names.split():
            assert name in options or re.search(rf"\b{name}\b", code), f"{name} is never written"
            assert compat.canonical(name) in fields(), f"{name} is no option"


def test_every_name_of_the_guide_is_found_on_the_page_of_parameters() -> None:
    page = (TESTS.parent / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page] == []


def _test(name: str) -> Any:
    """The test of that name here, in runs, or, by `file::name`, elsewhere, of which only that it is there matters."""
    file, _, there = name.rpartition("::")
    if file:
        assert f"def {there}" in (TESTS / file).read_text(encoding="utf-8"), name
        return None
    return getattr(test_parameters_in_runs, name)


@pytest.mark.parametrize("case", each("shown"))
def test_a_plan_shows_what_a_parameter_does(plan: Plan, placed: Any, case: tuple[Options, str]) -> None:
    options, told = case
    assert told in plan(**placed(options))
    if "output_dir" not in options and "fp32" not in options:
        assert told not in _plain_plan(plan)


def _plain_plan(plan: Plan, kept: list[str] = []) -> str:  # noqa: B006 - made once
    if not kept:
        kept.append(plan())
    return kept[0]


@pytest.mark.parametrize("case", each("refused"))
def test_a_wrong_value_is_refused_with_what_is_allowed(plan: Plan, placed: Any, case: tuple[Options, str]) -> None:
    options, told = case
    assert told in plan(code=None, **placed(options))


@pytest.mark.parametrize("options", each("shapes"))
def test_a_parameter_shapes_the_weights(train: Run, plain_run: Path, options: Options) -> None:
    assert differ(train(**options), plain_run)


@pytest.mark.parametrize("options", each("keeps"))
def test_a_parameter_leaves_the_weights_as_they_are(train: Run, plain_run: Path, options: Options) -> None:
    assert not differ(train(**options), plain_run)


def test_the_guide_s_command_runs_as_it_is_printed(
    tiny_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = GUIDE.format(model=tiny_model, data=data)
    pasted = command.replace("\n", " \\\n# a comment between the options\n")
    (tmp_path / "pasted.txt").write_text(pasted)
    assert main(["train", "pasted.txt"]) == 0
    told = capsys.readouterr()
    folder = tmp_path / "saves/DeepSeek-R1-1.5B-Distill/lora/train_2025-03-26-09-56-13"
    for line in ("output_dir", "no GPU was found", "preprocessing_num_workers", "ddp_timeout"):
        assert line in told.err
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 6
    assert (folder / "training_loss.png").is_file() and (folder / "checkpoint-6").is_dir()
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"], len(adapter["target_modules"])) == (
        8,
        16,
        0,
        7,
    )
    assert {"num_padded_tokens_seen", "num_loss_tokens_seen", "num_input_tokens_seen"} <= history(folder)[0].keys()
    assert main(["train", "pasted.txt"]) == 2
    told = capsys.readouterr()
    for way in ("overwrite_output_dir", "another output_dir", "num_train_epochs"):
        assert way in told.err
    as_yaml = "\n".join(
        f"{name}: {value}" for name, value in (each.split(maxsplit=1) for each in command.split("--")[1:])
    )
    (tmp_path / "my.yaml").write_text(as_yaml)
    assert load(["my.yaml"], "train").config == load(["pasted.txt"], "train").config


def test_every_spelling_of_a_switch_is_read() -> None:
    def value(*written: str) -> Loaded:
        return load(["--model_name_or_path", "m", "--dataset", "d", *written], "train")

    for text in ("True", "true", "1", "yes"):
        assert value("--plot_loss", text).config.train.plot_loss
        assert value(f"plot_loss={text}").config.train.plot_loss
    assert value("--plot_loss").config.train.plot_loss and value("--disable_progress_bar").config.train.disable_tqdm
    for written in (["--plot_loss", "False"], ["--no-plot_loss"], ["plot_loss=no"]):
        assert not value(*written).config.train.plot_loss
    assert value("--disable_gradient_checkpointing").config.model.gradient_checkpointing is False
    assert value("--neat_packing").config.data.packing is True
    assert value("--max_steps", "-1").config.train.max_steps == -1
