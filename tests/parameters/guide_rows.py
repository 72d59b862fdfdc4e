"""What the parameter guide promises, row by row, and what shows that it is kept.  Data only; knows no test's code."""

from dataclasses import dataclass
from typing import Any

Options = dict[str, Any]
"""Options of a run, beside those that all have (`guide_runs.py`); None leaves one out."""

NAMES = [
    "stage",
    "do_train",
    "model_name_or_path",
    "use_modelscope",
    "preprocessing_num_workers",
    "finetuning_type",
    "template",
    "flash_attn",
    "dataset_dir",
    "dataset",
    "cutoff_len",
    "overflow",
    "learning_rate",
    "num_train_epochs",
    "num_epochs",
    "max_samples",
    "sample_strategy",
    "per_device_train_batch_size",
    "batch_size",
    "global_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "max_grad_norm",
    "logging_steps",
    "save_steps",
    "warmup_steps",
    "warmup_ratio",
    "packing",
    "neat_packing",
    "report_to",
    "output_dir",
    "overwrite_output_dir",
    "bf16",
    "fp16",
    "fp32",
    "fp8",
    "compute_type",
    "plot_loss",
    "trust_remote_code",
    "ddp_timeout",
    "include_num_input_tokens_seen",
    "optim",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target",
    "save_best_model",
    "metric_for_best_model",
    "early_stopping_steps",
    "resume_from_checkpoint",
    "save_format",
    "data_augmentation",
    "augment",
    "weight_decay",
    "dropout_rate",
    "gradient_checkpointing",
    "disable_gradient_checkpointing",
    "local_rank",
    "eval_steps",
    "eval_ratio",
    "val_size",
    "eval_dataset",
    "metrics",
    "debug",
    "log_dir",
    "logging_dir",
    "disable_progress_bar",
    "disable_tqdm",
    "lora_init",
    "lora_modules",
    "lora_learning_rate",
    "prompt_template",
    "template_args",
    "max_steps",
    "seed",
    "deterministic",
    "disable_cache",
    "overwrite_cache",
    "quantization_bit",
    "quantization_method",
    "rope_scaling",
    "add_tokens",
    "resize_vocab",
    "profile",
]
"""Every name in both tables of the guide, aliases among them, and those that its text asks for."""


@dataclass(frozen=True)
class Row:
    """What of one row of the guide is tried."""

    names: str
    """The parameter and its other names."""
    shown: tuple[tuple[Options, str], ...] = ()
    """A plan with these options says this, and one without does not."""
    shapes: tuple[Options, ...] = ()
    """Runs whose weights are others than those of a plain run."""
    keeps: tuple[Options, ...] = ()
    """Runs whose weights are the same."""
    refused: tuple[tuple[Options, str], ...] = ()
    """A plan with these options ends in an error that says this."""
    tests: tuple[str, ...] = ()
    """Tests of it beside that: of test_parameters_in_runs.py, or `file::test`."""


FIRST = (
    Row(
        "stage",
        shown=(({"stage": "pt"}, "tokens        683 in 1 samples, the longest 683"),),
        refused=(({"stage": "sftt"}, "did you mean 'sft'?"),),
    ),
    Row(
        "do_train",
        refused=(({"do_train": "perhaps"}, "do_train: must be true or false"),),
        tests=("test_not_to_train_is_a_plan_or_looks_at_the_model_as_it_is",),
    ),
    Row(
        "model_name_or_path use_modelscope",
        refused=(
            ({"model_name_or_path": "nowhere/at-all"}, "'nowhere/at-all' is no folder here"),
            ({"use_modelscope": True, "model_name_or_path": "nowhere/at-all"}, "and ModelScope did not give it"),
        ),
        tests=("test_a_model_s_folder_may_be_written_in_any_way_and_is_recorded",),
    ),
    Row(
        "preprocessing_num_workers",
        shown=(({"preprocessing_num_workers": 9999}, "instead of 9999, one for each core"),),
        refused=(({"preprocessing_num_workers": 0}, "must be at least 1"),),
        tests=("test_as_many_processes_prepare_rows_as_are_asked_for",),
    ),
    Row(
        "finetuning_type",
        refused=(({"finetuning_type": "lorra"}, "did you mean 'lora'?"),),
        tests=("test_each_method_trains_what_it_says", "train/test_qlora.py::test_a_run"),
    ),
    Row(
        "template prompt_template",
        shown=(
            ({"template": "default"}, "template    Human: "),
            (
                {"template": "default"},
                "default differs from the tokenizer's own in a plain conversation: it writes 'Human: Hi",
            ),
            ({"template": "auto"}, "template: auto: proved on"),
            ({"template": "jinja:TEMPLATE"}, "template    user says "),
            (
                {"template": "custom", "template_args": '{"user": "Q: {{content}} A: ", "assistant": "{{content}}!"}'},
                "Q: ",
            ),
            ({"prompt_template": "default", "template": None}, "template    Human: "),
        ),
        refused=(
            ({"template": "qwne"}, "did you mean 'qwen'?"),
            ({"template": "custom"}, "custom needs template_args"),
            ({"template": "jinja:nowhere.jinja"}, "there is no file 'nowhere.jinja'"),
            ({"prompt_template": "default"}, "both set template"),
        ),
    ),
    Row(
        "template_args",
        shown=(
            ({"template_args": '{"default_system": "Be brief."}'}, "Be brief."),
            ({"template_args": '{"user": "Q: {{content}} A: "}'}, "Q: "),
        ),
        refused=(({"template_args": '{"usr": "x"}'}, "usr"), ({"template_args": "{"}, "template_args")),
        tests=("templates/test_preface.py::test_",),
    ),
    Row(
        "flash_attn",
        shown=(
            ({"flash_attn": "disabled"}, "attention by eager"),
            ({"flash_attn": "disabled", "compute_type": "bf16"}, "computing in bf16, attention by eager"),
        ),
        refused=(
            ({"flash_attn": "fa4"}, "flash_attn: must be one of"),
            (
                {"flash_attn": "fa2", "device": "cpu"},
                "fa2 is not available here: it needs a GPU; available: auto, sdpa",
            ),
            ({"flash_attn": "flex", "device": "cpu"}, "flex is not available here: it needs a GPU"),
        ),
        tests=("test_attention_is_named",),
    ),
    Row(
        "dataset_dir",
        refused=(({"dataset_dir": "nowhere"}, "nowhere"),),
        tests=(
            "test_data_is_found_beside_the_yaml_file_and_needs_no_dataset_info",
            "data/test_sources.py::test_dataset_dir_is_found_beside_the_yaml_file_and_the_working_directory_wins",
        ),
    ),
    Row(
        "dataset",
        shown=(
            ({"dataset": "talk#7"}, "7 (talk"),
            ({"dataset": "talk,more"}, "rows read     29 (talk 24, more 5)"),
            ({"dataset": "FILE"}, "read as alpaca"),
        ),
        refused=(({"dataset": "tlak"}, "did you mean 'talk'?"), ({"dataset": "nowhere.json"}, "there is no file")),
        tests=(
            "test_data_is_found_beside_the_yaml_file_and_needs_no_dataset_info",
            "data/test_sources.py::test_hubs_are_known_by_entry_and_by_prefix_and_asked_only_when_rows_are_read",
            "data/test_sources.py::test_a_dataset_of_modelscope_says_what_to_install",
        ),
    ),
    Row(
        "cutoff_len overflow",
        shown=(
            ({"cutoff_len": 90}, "cut           to cutoff_len 90: "),
            ({"cutoff_len": 90, "overflow": "drop"}, "dropped       "),
        ),
        refused=(
            ({"cutoff_len": 0}, "must be at least 1"),
            ({"cutoff_len": 90, "overflow": "error"}, "over cutoff_len"),
            ({"overflow": "cut"}, "must be one of truncate, drop, split, error"),
        ),
        tests=("data/test_cut.py::test_a_split_conversation_trains_every_answer_once_in_its_order",),
    ),
    Row(
        "learning_rate",
        shapes=({"learning_rate": 1e-3},),
        refused=(
            ({"learning_rate": 0}, "must be above 0"),
            ({"learning_rate": "inf"}, "learning_rate: "),
            ({"learning_rate": "5e-o5"}, "learning_rate: "),
        ),
        tests=("test_rates_rise_and_fall_as_written",),
    ),
    Row(
        "num_train_epochs num_epochs",
        shown=(
            ({"max_steps": None, "num_train_epochs": 2}, "6 an epoch of 4 rows each, 12 in all"),
            ({"max_steps": None, "num_epochs": 0.5}, "6 an epoch of 4 rows each, 3 in all"),
        ),
        refused=(
            ({"num_train_epochs": 0}, "must be above 0"),
            ({"num_epochs": 2, "num_train_epochs": 3}, "both set num_train_epochs"),
        ),
    ),
    Row(
        "max_samples sample_strategy",
        shown=(
            ({"max_samples": 5}, "rows read     5 (talk 5)"),
            ({"max_samples": 5, "dataset": "talk,more"}, "rows read     10 (talk 5, more 5)"),
            ({"max_samples": 3, "sample_strategy": "random"}, "269 in 3 samples, the longest 107"),
            ({"sample_strategy": "random"}, "has no effect without max_samples"),
        ),
        refused=(
            ({"max_samples": 0}, "must be at least 1"),
            ({"sample_strategy": "last"}, "must be one of first, random"),
        ),
    ),
    Row(
        "per_device_train_batch_size batch_size global_batch_size",
        shown=(
            ({"per_device_train_batch_size": 3}, "8 an epoch of 3 rows each"),
            ({"batch_size": 8, "per_device_train_batch_size": None}, "3 an epoch of 8 rows each"),
            ({"global_batch_size": 8}, "of 8 rows each"),
        ),
        refused=(
            ({"per_device_train_batch_size": 0}, "must be at least 1"),
            ({"batch_size": 2}, "both set per_device_train_batch_size"),
            ({"global_batch_size": 7}, "is no multiple of per_device_train_batch_size"),
            ({"global_batch_size": 8, "gradient_accumulation_steps": 2}, "leave one out"),
        ),
    ),
    Row(
        "gradient_accumulation_steps",
        shown=(({"gradient_accumulation_steps": 3}, "of 12 rows each"),),
        shapes=({"gradient_accumulation_steps": 2},),
        refused=(({"gradient_accumulation_steps": 0}, "must be at least 1"),),
        tests=("test_accumulated_micro_batches_are_one_large_batch",),
    ),
    Row(
        "lr_scheduler_type",
        shown=(
            ({"lr_scheduler_type": "Constant", "warmup_steps": 1}, "has no effect with lr_scheduler_type constant"),
        ),
        shapes=({"lr_scheduler_type": "constant"}, {"lr_scheduler_type": "Inverse_SQRT"}),
        refused=(({"lr_scheduler_type": "cosin"}, "did you mean 'cosine'?"),),
        tests=("test_rates_rise_and_fall_as_written",),
    ),
    Row(
        "max_grad_norm",
        refused=(({"max_grad_norm": -1}, "must be at least 0"),),
        tests=("test_gradients_are_scaled_down_to_max_grad_norm_and_their_length_before_is_logged",),
    ),
    Row(
        "logging_steps save_steps",
        shown=(
            ({"save_steps": 0.5, "max_steps": 8}, "checkpoints every 4 steps: 2"),
            ({"save_steps": 3, "max_steps": 8}, "checkpoints every 3 steps: 3"),
            ({"logging_steps": 0.25, "max_steps": 8}, "logs          every 2 steps"),
            ({"logging_steps": 5}, "logs          every 5 steps"),
        ),
        refused=(({"logging_steps": 0}, "must be above 0"), ({"save_steps": 1.5}, "must be a whole number of steps")),
        tests=("test_values_that_say_what_is_kept_and_shown_do",),
    ),
    Row(
        "warmup_steps warmup_ratio",
        shown=(({"warmup_steps": 2}, "2 steps of warmup in a run of 2"),),
        shapes=({"warmup_steps": 0.5}, {"warmup_ratio": 0.5}),
        refused=(
            ({"warmup_steps": -1}, "must be at least 0"),
            ({"warmup_ratio": 3}, "must be at least 0 and below 1"),
            ({"warmup_ratio": 0.5, "warmup_steps": 1}, "both set warmup_steps"),
        ),
        tests=("test_rates_rise_and_fall_as_written",),
    ),
    Row(
        "packing neat_packing",
        shown=(
            ({"packing": True, "cutoff_len": 256}, "packed        into rows of 256 tokens"),
            ({"neat_packing": True, "cutoff_len": 256}, "packed        into rows of 256 tokens"),
        ),
        refused=(
            ({"packing": "neat"}, "must be true or false or contaminated"),
            ({"packing": False, "neat_packing": True}, "both set packing"),
        ),
        tests=("test_packed_samples_see_each_other_only_when_contaminated",),
    ),
    Row(
        "report_to",
        refused=(
            ({"report_to": "http://localhost:5000"}, "takes trackers' names"),
            ({"report_to": "tensorbord"}, "did you mean 'tensorboard'?"),
            ({"report_to": "none,tensorboard"}, "none can't stand beside other trackers"),
        ),
        tests=("test_values_that_say_what_is_kept_and_shown_do",),
    ),
    Row(
        "output_dir overwrite_output_dir",
        shown=(
            ({"output_dir": None}, "writes to     saves/"),
            ({"output_dir": r"runs\one\two"}, "writes to     runs/one/two"),
            ({"overwrite_output_dir": True, "output_dir": "FINISHED"}, "Everything needed is there"),
        ),
        refused=(
            ({"output_dir": "FINISHED"}, "holds a finished run; set overwrite_output_dir: true"),
            ({"output_dir": "FILE"}, "output_dir"),
        ),
        tests=("test_an_interrupted_run_goes_on_and_foreign_files_stay",),
    ),
    Row(
        "bf16 fp16 fp32 fp8 compute_type",
        shown=(
            ({"compute_type": "bf16"}, "computing in bf16"),
            ({"compute_type": None, "bf16": True}, "computing in bf16"),
            ({"compute_type": None, "fp32": True, "lora_rank": 4}, "computing in fp32"),
            ({"compute_type": "pure_bf16"}, "computing in pure_bf16"),
        ),
        shapes=({"compute_type": "bf16"}, {"compute_type": "pure_bf16"}),
        refused=(
            ({"bf16": True, "fp16": True, "compute_type": None}, "both set compute_type"),
            ({"compute_type": "fp16", "device": "cpu"}, "it supports bf16, pure_bf16, fp32"),
            ({"compute_type": None, "fp16": True, "device": "cpu"}, "it supports bf16, pure_bf16, fp32"),
            ({"compute_type": None, "fp8": True, "device": "cpu"}, "fp8"),
            ({"compute_type": "bf17"}, "did you mean"),
        ),
    ),
    Row(
        "plot_loss",
        refused=(({"plot_loss": "maybe"}, "must be true or false"),),
        tests=("test_values_that_say_what_is_kept_and_shown_do", "test_the_curve_is_drawn_after_an_abort_too"),
    ),
    Row(
        "trust_remote_code",
        refused=(({"model_name_or_path": "REMOTE"}, "brings code (theirs.py) that trust_remote_code=true would run"),),
        tests=("test_code_that_runs_is_named_and_hashed",),
    ),
    Row(
        "ddp_timeout",
        shown=(({"ddp_timeout": 180000000}, "ddp_timeout: 180000000 seconds are 2083 days"),),
        refused=(({"ddp_timeout": 0}, "must be at least 1"),),
        tests=("reliability/test_ranks.py::test_a_process_that_stands_still_is_told_with_its_step_and_stack",),
    ),
    Row(
        "include_num_input_tokens_seen",
        refused=(({"include_num_input_tokens_seen": "some"}, "must be true or false"),),
        tests=("test_tokens_are_counted_only_when_asked_for",),
    ),
    Row(
        "optim",
        shapes=({"optim": "SGD"}, {"optim": "Adagrad"}, {"optim": "adafactor"}),
        keeps=({"optim": "ADAMW_TORCH"},),
        refused=(({"optim": "adamx"}, "unknown optimizer 'adamx'"),),
    ),
    Row(
        "lora_rank lora_alpha lora_dropout",
        shapes=({"lora_rank": 4}, {"lora_alpha": 64}, {"lora_dropout": 0.5}),
        keeps=({"lora_alpha": 16},),
        refused=(
            ({"lora_rank": 0}, "must be at least 1"),
            ({"lora_dropout": 1}, "must be below 1"),
            ({"lora_alpha": 0}, "must be above 0"),
        ),
    ),
    Row(
        "lora_target lora_modules",
        shapes=({"lora_target": "q_proj,v_proj"}, {"lora_target": ".*k_proj"}, {"lora_modules": "feedforward"}),
        keeps=({"lora_target": "attention,feedforward"},),
        refused=(
            ({"lora_target": "q_porj"}, "did you mean 'q_proj'?"),
            ({"lora_target": "q_proj,fc"}, "no module is named 'fc'; there are down_proj"),
            ({"lora_modules": "feedforward", "lora_target": "attention"}, "both set lora_target"),
        ),
        tests=("test_each_group_gets_adapters_where_it_says",),
    ),
)
"""The guide's own command."""
