"""What is not built yet is refused, and what changes nothing yet is said.  The tables, and the two rules that read them."""

from collections.abc import Iterator
from typing import Any

from tunesmith.config.rules.asked import Asked, Finding

NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "stage": ("rm", "dpo", "kto", "ppo", "grpo"),
    "finetuning_type": ("oft", "llamapro"),
    "quantization_method": ("eetq",),
}  # fmt: skip
"""Option -> its values that are not built yet."""

_AT_ONCE = (
    "weights would move while gradients still come, so none could be clipped, summed over micro-batches or refused"
)

REFUSED: dict[str, dict[str, str]] = {
    "optim": {
        "adamw_torch_xla": "runs on TPUs alone, for which nothing is built",
        "adamw_torch_npu_fused": "runs on Ascend NPUs alone, for which nothing is built",
        "adamw_apex_fused": "needs NVIDIA's apex; adamw_torch_fused computes the same",
        "adamw_anyprecision": "needs torchdistx, which is no longer kept; adamw_torch with compute_type pure_bf16 is near it",
        "lomo": f"{_AT_ONCE}; sgd keeps no more between steps",
        "adalomo": f"{_AT_ONCE}; adafactor keeps no more between steps",
        "galore_adamw_layerwise": f"{_AT_ONCE}; galore_adamw computes the same",
        "galore_adafactor_layerwise": f"{_AT_ONCE}; galore_adafactor computes the same",
        "galore_adamw_8bit_layerwise": f"{_AT_ONCE}; galore_adamw is nearest",
        "apollo_adamw_layerwise": f"{_AT_ONCE}; apollo_adamw computes the same",
        "galore_adamw_8bit": "8-bit states of projected gradients are not built; galore_adamw is nearest",
    },
}  # fmt: skip
"""Option -> values that other programs have and this one has not, and why."""

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
    for name, reasons in REFUSED.items():
        if asked.flat[name] in reasons:
            yield Finding("error", (name,), f"{asked.flat[name]} is not offered: {reasons[asked.flat[name]]}")
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
