"""The rows of the guide's second table, and what its text asks for besides, as in `guide_rows.py`."""

from guide_rows import Options, Row

EVALUATED: Options = {"val_size": 4}

SECOND = (
    Row(
        "save_best_model metric_for_best_model early_stopping_steps",
        shown=(
            ({"save_best_model": True} | EVALUATED, "the lowest eval_loss is the final model"),
            (
                {"save_best_model": True, "metric_for_best_model": "accuracy", "metrics": "accuracy"} | EVALUATED,
                "the highest eval_accuracy is the final model",
            ),
            ({"early_stopping_steps": 2, "eval_steps": 1} | EVALUATED, "ends after 2 evaluations without a better one"),
            ({"metric_for_best_model": "accuracy"}, "has no effect without save_best_model or early_stopping_steps"),
        ),
        refused=(
            ({"save_best_model": True}, "needs evaluation data"),
            ({"early_stopping_steps": 2}, "needs evaluation data"),
            ({"save_best_model": True, "metric_for_best_model": "acc"} | EVALUATED, "'acc' is not evaluated"),
        ),
        tests=(
            "train/test_best.py::test_the_best_checkpoint_is_kept_and_is_the_final_model",
            "train/test_best.py::test_a_run_that_finds_nothing_better_ends",
        ),
    ),
    Row(
        "resume_from_checkpoint",
        refused=(
            ({"resume_from_checkpoint": "nowhere"}, "resume_from_checkpoint: there is no folder"),
            ({"resume_from_checkpoint": False, "output_dir": "FINISHED"}, "resume_from_checkpoint is false"),
        ),
        tests=(
            "test_values_that_say_what_is_kept_and_shown_do",
            "reliability/test_exact_resume.py::test_a_stopped_run_ends_as_one_that_was_not",
            "train/test_interruptions.py::test_going_on_with_other_options_or_data_is_refused_by_name",
        ),
    ),
    Row(
        "save_format",
        refused=(({"save_format": "bin"}, "must be one of huggingface, pytorch"),),
        tests=("test_both_formats_are_written_and_load_elsewhere",),
    ),
    Row(
        "data_augmentation augment",
        shown=(
            ({"data_augmentation": True}, "variations of prompts"),
            ({"data_augmentation": True, "augment": '{"copies": 2}'}, "variation, 68 tokens, 3 trained, sample 2 of 2"),
            ({"augment": '{"copies": 2}'}, "has no effect without data_augmentation"),
        ),
        shapes=({"data_augmentation": True},),
        refused=(
            ({"data_augmentation": True, "augment": '{"copy": 2}'}, "augment"),
            ({"data_augmentation": True, "stage": "pt"}, "varies the prompts of conversations"),
        ),
        tests=("data/test_augment.py::test_",),
    ),
    Row(
        "weight_decay",
        shapes=({"weight_decay": 0.5},),
        refused=(({"weight_decay": -0.1}, "must be at least 0"),),
        tests=("test_weights_shrink_but_not_norms_and_biases",),
    ),
    Row(
        "dropout_rate",
        shown=(({"dropout_rate": 0.3}, "dropout_rate: 0.3 for attention_dropout, 2 in all"),),
        shapes=({"dropout_rate": 0.3},),
        keeps=({"dropout_rate": 0},),
        refused=(({"dropout_rate": 1}, "must be below 1"),),
        tests=("models/test_dropout.py::test_a_model_without_one_is_refused",),
    ),
    Row(
        "gradient_checkpointing disable_gradient_checkpointing",
        keeps=({"gradient_checkpointing": True}, {"gradient_checkpointing": "auto"}),
        refused=(
            ({"gradient_checkpointing": "often"}, "must be true or false or auto"),
            (
                {"gradient_checkpointing": True, "disable_gradient_checkpointing": True},
                "both set gradient_checkpointing",
            ),
        ),
        tests=("test_checkpointing_takes_less_memory",),
    ),
    Row(
        "local_rank",
        shown=(({"local_rank": 3}, "local_rank: 3 is ignored: no launcher started this process"),),
        refused=(({"local_rank": -2}, "must be at least -1"),),
        tests=("test_a_rank_must_be_the_launcher_s",),
    ),
    Row(
        "eval_steps",
        shown=(
            ({"eval_steps": 3} | EVALUATED, "evaluates     every 3 steps"),
            ({"eval_steps": 0.5, "max_steps": 8} | EVALUATED, "evaluates     every 4 steps"),
            ({"eval_steps": 3}, "has no effect without evaluation data"),
        ),
        refused=(({"eval_steps": 0}, "must be above 0"), ({"eval_steps": 2.5} | EVALUATED, "must be a whole number")),
    ),
    Row(
        "eval_ratio val_size eval_dataset",
        shown=(
            ({"eval_ratio": 0.25}, "18 to train on, 6 to evaluate"),
            ({"val_size": 5}, "19 to train on, 5 to evaluate"),
            ({"eval_dataset": "more"}, "24 to train on, 5 to evaluate"),
        ),
        refused=(
            ({"val_size": 0.1, "eval_dataset": "talk"}, "leave one out"),
            ({"eval_ratio": -1}, "must be at least 0"),
            ({"val_size": 24}, "val_size"),
        ),
    ),
    Row(
        "metrics",
        shown=(({"val_size": 4, "metrics": "loss,f1"}, "evaluates     at the end: loss, f1"),),
        refused=(
            ({"metrics": "f2"}, "metrics"),
            ({"metrics": "loss,f1"}, "there are no rows to answer: set eval_dataset or val_size"),
        ),
        tests=(
            "test_values_that_say_what_is_kept_and_shown_do",
            "train/test_answered.py::test_each_evaluation_scores_answers_and_training_goes_on_as_without",
        ),
    ),
    Row(
        "debug",
        shown=(({"debug": True}, "talk.json row 2: read as "),),
        refused=(({"debug": "very"}, "must be true or false"),),
        tests=("test_errors_show_where_they_come_from_when_debugging",),
    ),
    Row(
        "log_dir logging_dir",
        refused=(({"log_dir": "a", "logging_dir": "b"}, "both set logging_dir"),),
        tests=("test_values_that_say_what_is_kept_and_shown_do",),
    ),
    Row(
        "disable_progress_bar disable_tqdm",
        refused=(({"disable_progress_bar": False}, "both set disable_tqdm"),),
        tests=("test_a_display_is_drawn_unless_it_is_switched_off",),
    ),
    Row(
        "lora_init",
        shown=(({"lora_init": "zero"}, "step 0 is the base model"),),
        shapes=tuple({"lora_init": init} for init in ("normal", "gaussian", "orthogonal", "pissa", "olora")),
        keeps=({"lora_init": "zero"},),
        refused=(
            ({"lora_init": "none"}, "lora_init"),
            ({"lora_init": "loftq"}, "write quantization_bit too"),
        ),
        tests=(
            "test_every_start_is_the_base_model",
            "train/test_qlora.py::test_loftq_starts_nearer_and_fits_no_whole_base",
        ),
    ),
    Row(
        "lora_learning_rate",
        shapes=({"lora_learning_rate": 1e-4},),
        refused=(
            ({"lora_learning_rate": 0}, "must be above 0"),
            ({"lora_learning_rate": 1e-4, "finetuning_type": "full"}, "trains no LoRA weights; write learning_rate"),
        ),
        tests=("test_adapters_and_what_is_trained_beside_them_have_rates_of_their_own",),
    ),
    Row(
        "max_steps",
        shown=(
            ({"max_steps": 5, "num_train_epochs": 9}, "5 in all"),
            ({"max_steps": -1}, "18 in all"),
        ),
        refused=(({"max_steps": 0}, "max_steps: must be at least 1"),),
    ),
    Row(
        "seed deterministic",
        shapes=({"seed": 7},),
        keeps=({"deterministic": True},),
        refused=(({"seed": -1}, "must be at least 0"), ({"deterministic": "mostly"}, "must be true or false")),
        tests=("test_deterministic_kernels_are_asked_for",),
    ),
    Row(
        "disable_cache overwrite_cache",
        keeps=({"disable_cache": True}, {"overwrite_cache": True}),
        refused=(
            ({"disable_cache": "x"}, "must be true or false"),
            ({"overwrite_cache": "x"}, "must be true or false"),
        ),
        tests=("test_prepared_rows_are_used_written_anew_or_left_alone",),
    ),
    # What its text asks for.
    Row(
        "quantization_bit quantization_method",
        refused=(
            ({"quantization_bit": 7}, "must be one of 2, 3, 4, 5, 6, 8"),
            ({"quantization_bit": 4, "finetuning_type": "full"}, "trains weights that would be held in few bits"),
        ),
        tests=("test_few_bits_change_what_is_computed",),
    ),
    Row(
        "rope_scaling",
        shown=(
            ({"rope_scaling": "yarn", "cutoff_len": 1000}, "yarn stretches the model's 512 positions 2 times"),
            ({"rope_scaling": "linear", "cutoff_len": 400}, "cutoff_len 400 fits into the model's 512 positions"),
        ),
        shapes=tuple({"rope_scaling": kind} for kind in ("linear", "yarn", "llama3")),
        refused=(({"rope_scaling": "ntk"}, "must be one of linear, dynamic, yarn, llama3"),),
        tests=("models/test_positions.py::test_dynamic_angles_depend_on_what_is_read_alone",),
    ),
    Row(
        "add_tokens resize_vocab",
        refused=(({"resize_vocab": "grow"}, "must be true or false"),),
        tests=("test_new_tokens_get_rows_and_a_vocabulary_that_fits_stays",),
    ),
    Row(
        "profile",
        shown=(({"profile": "guide", "per_device_train_batch_size": None, "save_steps": 1}, "of 16 rows each"),),
        refused=(({"profile": "giude"}, "must be one of guide"),),
    ),
)
