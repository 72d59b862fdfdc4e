"""Which options shape the trained weights, so that a run may only go on with the same ones.  Knows names only."""

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.config.schema import Config
from tunesmith.log import redacted

NEUTRAL = frozenset(
    {
        "profile", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "resume_anyway", "num_train_epochs",
        "max_steps", "do_train", "do_eval", "do_predict", "per_device_eval_batch_size", "eval_dataset", "eval_steps",
        "eval_strategy", "eval_on_start", "eval_delay", "eval_on_each_dataset", "metrics", "predict_with_generate", "logging_steps",
        "logging_first_step", "logging_dir", "save_steps", "save_strategy", "save_total_limit", "save_only_model",
        "save_format", "save_best_model", "metric_for_best_model", "greater_is_better", "early_stopping_steps", "report_to", "run_name",
        "plot_loss", "include_num_input_tokens_seen", "disable_tqdm", "debug", "lang", "ddp_timeout", "local_rank",
        "dataloader_num_workers", "loss_limit", "preprocessing_num_workers", "preprocessing_batch_size",
        "overwrite_cache", "disable_cache", "tokenized_path", "strict", "max_reported_rows", "cache_dir",
        "hf_hub_token", "dataset_dir", "media_dir", "nproc_per_node", "device", "flash_attn", "gradient_checkpointing",
        "fit", "badam_verbose", "price", "price_per_kwh", "watts", "currency",
    }
)  # fmt: skip
"""Options that may change between starts of one run.  More epochs or steps is no change of what was trained."""

SECTIONS = ("model", "data", "tuning", "optim", "train")


def options(cfg: Config) -> dict[str, Any]:
    """Flat name -> value of every option that shapes training."""
    sections = (section for name, section in cfg if name in SECTIONS)
    found = {name: value for section in sections for name, value in section if name not in NEUTRAL}
    shown: dict[str, Any] = json.loads(redacted(json.dumps(found)))  # as they are written down
    return shown


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One `name was X, is Y` per option that differs.  Options that one side does not know are left alone."""
    return [
        f"{name} was {before[name]}, is {now[name]}" for name in now if name in before and before[name] != now[name]
    ]


def length(cfg: Config) -> dict[str, float | None]:
    """How long the run was asked to be."""
    return {"num_train_epochs": cfg.train.num_train_epochs, "max_steps": cfg.train.max_steps}


def is_longer(before: Mapping[str, Any], cfg: Config) -> bool:
    """Whether `cfg` asks for more than a finished run did."""
    steps_before, steps = _limit(before.get("max_steps")), _limit(cfg.train.max_steps)
    if steps_before is not None or steps is not None:
        return steps is None or (steps_before is not None and steps > steps_before)
    return cfg.train.num_train_epochs > float(before.get("num_train_epochs", 0.0))


def _limit(max_steps: int | None) -> int | None:
    return None if max_steps in (None, -1) else max_steps
