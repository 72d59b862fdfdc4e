"""What is not built yet is refused, and what changes nothing yet is said.  The tables, and the two rules that read them."""

from collections.abc import Iterator
from typing import Any

from tunesmith.config.rules.asked import Asked, Finding

NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "stage": ("rm", "dpo", "kto", "ppo", "grpo"),
    "finetuning_type": ("oft", "llamapro"),
    "quantization_method": ("eetq",),
    "compute_type": ("fp8",),
    "lr_scheduler_type": ("reduce_lr_on_plateau", "greedy"),
    "optim": (
        "adalomo", "adam_mini", "adamw_8bit", "adamw_anyprecision", "adamw_apex_fused", "adamw_bnb_8bit",
        "adamw_torch_4bit", "adamw_torch_8bit", "adamw_torch_npu_fused", "adamw_torch_xla", "ademamix", "ademamix_8bit",
        "apollo_adamw", "apollo_adamw_layerwise", "badam", "galore_adafactor", "galore_adafactor_layerwise",
        "galore_adamw", "galore_adamw_8bit", "galore_adamw_8bit_layerwise", "galore_adamw_layerwise", "grokadamw",
        "lion_32bit", "lion_8bit", "lomo", "muon", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit",
        "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop_bnb", "rmsprop_bnb_32bit",
        "rmsprop_bnb_8bit", "schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd", "stable_adamw",
    ),
}  # fmt: skip
"""Option -> its values that are not built yet."""

NOT_BUILT_AT_ALL = (
    "oft_rank",
    "export_quantization_bit", "export_quantization_dataset",
)  # fmt: skip
"""Options of which only the default is built."""

NO_EFFECT_YET = {
    "media_dir": "images, audio and video are not built yet",
}
"""Option -> why writing it changes nothing yet, neither the result nor what is kept."""


def not_built(asked: Asked) -> Iterator[Finding]:
    """An option that would be ignored is worse than none: what does not exist yet is refused."""
    for name, values in NOT_BUILT.items():
        if asked.flat[name] in values and asked.flat[name] is not None and asked.flat[name] != asked.defaults[name]:
            yield Finding("error", (name,), f"{_yaml(asked.flat[name])} is not built yet")
    for name in NOT_BUILT_AT_ALL:
        if asked.wrote(name):
            yield Finding("error", (name,), "not built yet")


def no_effect_yet(asked: Asked) -> Iterator[Finding]:
    """What is harmless without being built is accepted, and said."""
    for name, reason in NO_EFFECT_YET.items():
        if asked.wrote(name):
            yield Finding("warning", (name,), f"has no effect: {reason}")


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
