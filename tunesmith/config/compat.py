"""Other spellings of an option -> ours: LLaMA-Factory's, Transformers 4's and 5's, the parameter guide's.

Tables only, and the two functions that read them.  Knows names; knows nothing of files or flags.
"""

from dataclasses import dataclass
from typing import Any

ALIASES: dict[str, tuple[str, ...]] = {
    "model_name_or_path": ("model", "model_path"),
    "model_revision": ("revision",),
    "adapter_name_or_path": ("adapter", "checkpoint_dir"),
    "hf_hub_token": ("hub_token", "hf_token", "push_to_hub_token"),
    "flash_attn": ("attn_implementation",),
    "enable_liger_kernel": ("use_liger_kernel",),
    "gradient_checkpointing": ("activation_checkpointing",),
    "dropout_rate": ("dropout",),
    "cutoff_len": ("max_seq_length", "model_max_length"),
    "train_on_prompt": ("train_on_inputs",),
    "max_samples": ("max_train_samples",),
    "val_size": ("eval_ratio", "test_size"),
    "template": ("prompt_template",),
    "template_args": ("prompt_template_args",),
    "preprocessing_num_workers": ("dataset_num_proc",),
    "finetuning_type": ("tuning_type",),
    "lora_rank": ("lora_r",),
    "lora_target": ("lora_modules", "lora_target_modules", "target_modules"),
    "lora_init": ("init_lora_weights",),
    "additional_target": ("modules_to_save",),
    "freeze_trainable_layers": ("num_layer_trainable",),
    "freeze_trainable_modules": ("name_module_trainable",),
    "optim": ("optimizer",),
    "learning_rate": ("lr",),
    "lora_learning_rate": ("lora_lr",),
    "lr_scheduler_type": ("lr_scheduler", "scheduler"),
    "warmup_steps": ("num_warmup_steps",),
    "max_grad_norm": ("gradient_clipping", "clip_grad_norm"),
    "label_smoothing_factor": ("label_smoothing",),
    "num_train_epochs": ("num_epochs", "epochs"),
    "per_device_train_batch_size": ("batch_size", "per_gpu_train_batch_size", "micro_batch_size"),
    "per_device_eval_batch_size": ("eval_batch_size", "per_gpu_eval_batch_size"),
    "gradient_accumulation_steps": ("grad_accum_steps",),
    "resume_from_checkpoint": ("resume",),
    "save_best_model": ("load_best_model_at_end",),
    "early_stopping_steps": ("early_stopping_patience",),
    "eval_strategy": ("evaluation_strategy",),
    "deterministic": ("full_determinism",),
    "logging_dir": ("log_dir",),
    "plot_loss": ("plot_losses",),
    "disable_tqdm": ("disable_progress_bar",),
    "predict_with_generate": ("eval_with_generate",),
    "export_size": ("max_shard_size",),
    "base_model": ("base",),
    "num_beams": ("eval_num_beams", "generation_num_beams"),
}
"""Canonical name -> spellings that mean the same and take the same values."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A boolean elsewhere that is a value of one of our options.  `off` None: false says nothing."""

    option: str
    on: Any
    off: Any = None


PRECISIONS = ("bf16", "fp16", "fp32", "pure_bf16", "fp8")
"""Booleans elsewhere.  A false one only says what `compute_type` is not, so it gives way to a true one."""

SWITCHES: dict[str, Switch] = {
    **{name: Switch("compute_type", name, "fp32") for name in PRECISIONS},
    "no_cuda": Switch("device", "cpu"),
    "use_cpu": Switch("device", "cpu"),
    "pissa_init": Switch("lora_init", "pissa"),
    "neat_packing": Switch("packing", True, False),
    "disable_gradient_checkpointing": Switch("gradient_checkpointing", False, True),
    "split_special_tokens": Switch("allow_special_tokens", False, True),
    "group_by_length": Switch("batching", "length_grouped"),
    "use_llama_pro": Switch("finetuning_type", "llamapro"),
    "adafactor": Switch("optim", "adafactor"),
    "use_galore": Switch("optim", "galore_adamw"),
    "use_apollo": Switch("optim", "apollo_adamw"),
    "use_badam": Switch("optim", "badam"),
    "use_adam_mini": Switch("optim", "adam_mini"),
    "use_muon": Switch("optim", "muon"),
    "use_dft_loss": Switch("loss", "dft"),
    "use_eaft_loss": Switch("loss", "eaft"),
    "use_asft_loss": Switch("loss", "asft"),
    "save_safetensors": Switch("save_format", "huggingface", "pytorch"),
    "compute_accuracy": Switch("metrics", ["loss", "ppl", "accuracy"]),
    "use_swanlab": Switch("report_to", ["swanlab"]),
}

BESIDE_SWITCHES: dict[tuple[str, str], str] = {
    **{(name, "adamw_torch"): name for name in ("galore_adamw", "apollo_adamw", "badam", "adam_mini", "muon")},
    ("galore_adamw", "adafactor"): "galore_adafactor",
}
"""What a switch means, and the optimizer that is named beside it elsewhere -> ours for both."""

BOTH_SWITCHES = {("fp8", "bf16")}
"""Two switches that elsewhere are written together, and mean the first: what is not fp8 is bf16."""

RATIOS: dict[str, str] = {"warmup_ratio": "warmup_steps"}
"""Spellings that take a fraction of the run only, below 1."""

RESPELLED: dict[str, dict[str, Any]] = {
    "flash_attn": {
        "eager": "disabled",
        "flash_attention_2": "fa2",
        "flash_attention_3": "fa3",
        "flex_attention": "flex",
    },
    "init_special_tokens": {
        "description": "desc_init",
        "description_noise": "desc_init_w_noise",
        "noise": "noise_init",
    },
    "quantization_method": {"bitsandbytes": "bnb", "BITS_AND_BYTES": "bnb"},
    "include_num_input_tokens_seen": {"all": True, "non_padding": True, "no": False},
    "optim": {"adamw_hf": "adamw_torch"},
}
"""Option -> values other programs use, and ours for them."""

PATHS = (
    "adapter_name_or_path", "cache_dir", "dataset", "dataset_dir", "eval_dataset", "export_dir", "logging_dir",
    "media_dir", "model_name_or_path", "new_special_tokens_config", "output_dir", "resume_from_checkpoint", "tokenized_path",
)  # fmt: skip
"""Options in which a backslash separates folders."""

CASELESS = ("optim", "lr_scheduler_type", "loss", "report_to")
"""Options in whose values case does not matter."""

CANONICAL: dict[str, str] = {other: ours for ours, others in ALIASES.items() for other in others}


MEANT_BY: dict[str, dict[str, str]] = {"eval": {"batch_size": "per_device_eval_batch_size"}}
"""Command -> spellings that mean another option there than elsewhere."""


def canonical(name: str, command: str = "") -> str:
    """Our name of the option that `name` is a spelling of for a command; `name` itself when it is none that is known."""
    if name in MEANT_BY.get(command, {}):
        return MEANT_BY[command][name]
    if name in SWITCHES:
        return SWITCHES[name].option
    return RATIOS.get(name) or CANONICAL.get(name, name)


def spellings(name: str) -> list[str]:
    """Every other name under which an option may be written."""
    switches = [spelling for spelling, switch in SWITCHES.items() if switch.option == name]
    ratios = [spelling for spelling, ours in RATIOS.items() if ours == name]
    return [*ALIASES.get(name, ()), *switches, *ratios]
