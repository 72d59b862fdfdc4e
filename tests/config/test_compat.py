"""Every other spelling reaches its option; every name of Transformers and LLaMA-Factory is known one way or another."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from tunesmith.config import compat, foreign, rules
from tunesmith.config.load import load
from tunesmith.config.schema import fields
from tunesmith.config.shapes import shape_of
from tunesmith.log import OptionError

SAMPLES = {bool: "true", int: "3", float: "0.5", str: "word"}
GUIDE_NAMES = (
    "stage do_train model_name_or_path preprocessing_num_workers finetuning_type template flash_attn dataset_dir "
    "dataset cutoff_len learning_rate num_train_epochs num_epochs max_samples per_device_train_batch_size batch_size "
    "gradient_accumulation_steps lr_scheduler_type max_grad_norm logging_steps save_steps warmup_steps warmup_ratio "
    "packing neat_packing report_to output_dir bf16 fp16 fp32 fp8 pure_bf16 plot_loss trust_remote_code ddp_timeout "
    "include_num_input_tokens_seen optim lora_rank lora_alpha lora_dropout lora_target save_best_model "
    "resume_from_checkpoint save_format data_augmentation weight_decay dropout_rate gradient_checkpointing "
    "disable_gradient_checkpointing local_rank eval_steps eval_ratio val_size metrics debug log_dir logging_dir "
    "disable_progress_bar disable_tqdm lora_init lora_modules lora_learning_rate prompt_template template_args "
    "max_steps seed deterministic disable_cache overwrite_cache overflow sample_strategy global_batch_size "
    "overwrite_output_dir eval_dataset metric_for_best_model use_modelscope"
)


def sample(name: str) -> str:
    """A value that the option takes, and that is not its default, so that a lost alias shows."""
    shape, default = shape_of(name), fields()[name][1].default
    if shape.item:
        return str(shape.item.choices[-1]) if shape.item.choices else "word"
    if shape.mapping:
        return "a=1"
    values = [str(choice) for choice in shape.choices] + [SAMPLES[kind] for kind in SAMPLES if kind in shape.scalars]
    values += ["false"] if bool in shape.scalars else []
    return next(value for value in values if value != str(default).lower())


def outcome(loaded, name: str, *words: str) -> object:
    """The value an option gets, or what a rule says about it."""
    try:
        return loaded(*words).config.flat()[name]
    except OptionError as problem:
        return [line.split(": ", 2)[-1] for line in problem.problems]


@pytest.mark.parametrize(
    ("alias", "name"), [item for item in compat.CANONICAL.items() if item[1] not in ("model_name_or_path", "dataset")]
)
def test_an_alias_is_the_option(loaded, alias, name):
    value = sample(name)
    assert outcome(loaded, name, f"--{alias}", value) == outcome(loaded, name, f"--{name}", value)


@pytest.mark.parametrize("alias", compat.ALIASES["model_name_or_path"])
def test_an_alias_of_the_model_is_the_model(alias):
    assert load([f"--{alias}", "m", "--dataset", "d"], "train").config.model.model_name_or_path == "m"


def test_tables_name_real_options_and_no_spelling_twice():
    spellings = [*fields(), *compat.CANONICAL, *compat.SWITCHES, *compat.RATIOS, *foreign.INERT, *foreign.UNBUILT]
    assert len(spellings) == len(set(spellings))
    switched = {switch.option for switch in compat.SWITCHES.values()}
    tables = (compat.ALIASES, compat.RESPELLED, compat.CASELESS, rules.NOT_BUILT)
    listed = {
        *compat.PATHS,
        *rules.NOT_BUILT_AT_ALL,
        *rules.tuning.LORA_ONLY,
        *rules.tuning.FREEZE_ONLY,
        *rules.train.STEPS,
    }
    assert {*switched, *compat.RATIOS.values(), *listed}.union(*tables) <= set(fields())
    assert set(foreign.INSTEAD) <= set(foreign.UNBUILT)


@pytest.mark.parametrize("name", GUIDE_NAMES.split())
def test_every_parameter_of_the_guide_is_an_option(name):
    assert compat.canonical(name) in fields()


def test_every_training_argument_of_transformers_is_known():
    source = Path(find_spec("transformers").submodule_search_locations[0], "training_args.py").read_text()
    cls = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "TrainingArguments")
    names = [node.target.id for node in cls.body if isinstance(node, ast.AnnAssign)]
    assert len(names) > 80
    known = {*fields(), *compat.CANONICAL, *compat.SWITCHES, *compat.RATIOS, *foreign.INERT, *foreign.UNBUILT}
    assert set(names) <= known


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["--warmup_ratio", "0.1"], "warmup_steps", 0.1),
        (["--disable_gradient_checkpointing", "False"], "gradient_checkpointing", True),
        (["--disable_gradient_checkpointing"], "gradient_checkpointing", False),
        (["--no_cuda"], "device", "cpu"),
        (["--use_cpu", "True"], "device", "cpu"),
        (["--no_cuda", "False"], "device", "auto"),
        (["--pissa_init", "True"], "lora_init", "pissa"),
        (["--neat_packing", "False"], "packing", False),
        (["--split_special_tokens", "True"], "allow_special_tokens", False),
        (["--attn_implementation", "flash_attention_2"], "flash_attn", "fa2"),
        (["--optim", "AdamW_Torch"], "optim", "adamw_torch"),
        (["--optim", "SGD"], "optim", "sgd"),
        (["--lr_scheduler_type", "Constant"], "lr_scheduler_type", "constant"),
        (["--report_to", "TensorBoard"], "report_to", ["tensorboard"]),
        (["--report_to", "None"], "report_to", ["none"]),
        (["--use_swanlab", "--report_to", "none"], "report_to", ["swanlab"]),
        (["--report_to", "wandb", "--use_swanlab"], "report_to", ["wandb", "swanlab"]),
        (["--report_to", "wandb", "--use_swanlab", "False"], "report_to", ["wandb"]),
        (["--adapter_name_or_path", "None"], "adapter_name_or_path", []),
        (["--include_num_input_tokens_seen", "all"], "include_num_input_tokens_seen", True),
        (["--lora_modules", "attention"], "lora_target", ["attention"]),
        (["--lora_modules", "attention", "--lora_target", "attention"], "lora_target", ["attention"]),
        (["--log_dir", ".\\logs"], "logging_dir", "./logs"),
        (["--max_steps", "None"], "max_steps", None),
        (["--eval_ratio", "0.1"], "val_size", 0.1),
    ],
)
def test_other_programs_values_become_ours(loaded, words, option, value):
    assert loaded(*words).config.flat()[option] == value


def test_paths_that_exist_keep_their_backslashes(loaded, folder, capsys):
    (folder / "a\\b").mkdir()
    assert loaded("--output_dir", "a\\b").config.train.output_dir == "a\\b"
    assert "note" not in capsys.readouterr().err
    assert loaded("--output_dir", "c\\d").config.train.output_dir == "c/d"
    assert capsys.readouterr().err == "note: output_dir: backslashes separate folders: c/d\n"


def test_a_name_without_effect_is_said_once_with_its_reason(loaded, capsys):
    assert loaded("--low_cpu_mem_usage", "False", yaml="ddp_find_unused_parameters: false\n")
    assert capsys.readouterr().err.splitlines() == [
        "warning: ddp_find_unused_parameters: has no effect: every trained weight takes part in each step",
        "warning: low_cpu_mem_usage: has no effect: weights are always loaded without a second copy",
    ]


@pytest.mark.parametrize("name", foreign.UNBUILT)
def test_a_name_that_would_change_training_is_refused_unless_it_is_off(loaded, refused, name, capsys):
    assert refused(f"--{name}=something")[0].startswith(f"command line: --{name}: not built yet")
    assert loaded(yaml=f"{name}: null\n") and loaded(f"--{name}", "False")
    assert capsys.readouterr().err == ""
