"""Which weights are trained."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.config.section import Below1, Positive, PositiveFloat, Section


class TuningConfig(Section):
    finetuning_type: Literal["lora", "qlora", "freeze", "full", "oft", "llamapro"] = "lora"
    """What is trained: `lora` small matrices beside frozen weights, `qlora` the same beside weights held in 4 bits
    (`quantization_bit`), `freeze` some layers, `full` everything."""

    lora_rank: Annotated[int, Field(ge=1, le=65536)] = 8
    """Inner dimension of each LoRA pair. More learns more and costs rank x (inputs + outputs) weights per layer."""

    lora_alpha: PositiveFloat | None = None
    """LoRA's output is scaled by alpha / rank. Default: twice the rank."""

    lora_dropout: Below1 = 0.0
    """Dropout before LoRA's first matrix, in training only."""

    lora_target: list[str] = ["all"]
    """Layers that get LoRA: `all` linear ones but the head, `attention`, `feedforward`, layer names, comma-separated,
    or one regular expression for whole names."""

    lora_init: Literal["kaiming", "normal", "gaussian", "zero", "orthogonal", "pissa", "olora", "loftq"] = "kaiming"
    """How LoRA's first matrix starts: `kaiming`, `normal` (also `gaussian`), `orthogonal`; the second is zero, so step 0 is
    the base model. `zero` is `kaiming` by another name, since both at zero would never learn. `pissa` and `olora` take
    both out of the base's weights, whose sum step 0 is. `loftq`: both make up for what `quantization_bit` rounds away."""

    pissa_iter: Annotated[int, Field(ge=-1, le=1000)] = 16
    """Iterations of the fast singular value decomposition for `lora_init: pissa`; -1 computes it exactly."""

    use_rslora: bool = False
    """Scale LoRA by alpha / sqrt(rank): steadier at high ranks."""

    use_dora: bool = False
    """Train a magnitude beside LoRA's direction (DoRA): often better at low ranks, about a third slower."""

    create_new_adapter: bool = False
    """Merge every adapter of `adapter_name_or_path` and train a fresh one, instead of going on with the last."""

    additional_target: list[str] = []
    """Modules trained in full and saved beside LoRA, such as `embed_tokens,lm_head`."""

    freeze_trainable_layers: Annotated[int, Field(ge=-100_000, le=100_000)] = 2
    """`freeze`: how many of the last layers are trained; negative counts from the first."""

    freeze_trainable_modules: list[str] = ["all"]
    """`freeze`: modules trained within those layers, by name, comma-separated; `all` for whole layers."""

    freeze_extra_modules: list[str] = []
    """`freeze`: modules outside the layers that are trained too, such as `embed_tokens,norm`."""

    oft_rank: Positive = 8
    """Blocks of each OFT matrix."""
