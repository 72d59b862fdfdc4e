"""How weights are moved: optimizer, learning rate, its schedule, limits."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.config.section import Below1, Count, Mapping, NonNegativeFloat, Positive, PositiveFloat, Section


class OptimConfig(Section):
    optim: str = "adamw_torch"
    """Optimizer, by torch's or Transformers' name; case does not matter. `tunesmith explain optim` lists them; what they are is
    in docs/optimizers.md."""

    optim_args: Mapping = {}
    """Further arguments of the optimizer, as a mapping, JSON or `key=value,key=value`, such as `momentum=0.9` for
    SGD."""

    optim_target_modules: list[str] = []
    """GaLore and APOLLO: Transformers' name of `galore_target` and `apollo_target`."""

    galore_target: list[str] = ["all"]
    """GaLore: linear layers whose gradients are projected, by parts of their names or regular expressions,
    comma-separated; `all` but the output head."""

    galore_rank: Positive = 16
    """GaLore: directions of each gradient that are kept."""

    galore_update_interval: Positive = 200
    """GaLore: steps after which the directions are taken anew, which costs a singular value decomposition per matrix."""

    galore_scale: PositiveFloat = 2.0
    """GaLore: factor of projected steps."""

    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = "std"
    """GaLore: which side of a matrix is projected: `std` the longer, `reverse_std` the shorter, `full` both."""

    apollo_target: list[str] = ["all"]
    """APOLLO: linear layers whose gradients are projected, as for `galore_target`."""

    apollo_rank: Positive = 16
    """APOLLO: directions in which Adam's scaling is found; 1 with `apollo_scale_type: tensor` is APOLLO-Mini."""

    apollo_update_interval: Positive = 200
    """APOLLO: steps after which other directions are taken."""

    apollo_scale: PositiveFloat = 32.0
    """APOLLO: steps are multiplied by its square root."""

    apollo_proj: Literal["svd", "random"] = "random"
    """APOLLO: random directions, or the gradient's strongest."""

    apollo_proj_type: Literal["std", "right", "left"] = "std"
    """APOLLO: which side of a matrix is projected; `std` the longer."""

    apollo_scale_type: Literal["channel", "tensor"] = "channel"
    """APOLLO: one factor per channel, or per matrix."""

    apollo_scale_front: bool = False
    """APOLLO: count `apollo_scale` in before steps are kept from growing fast."""

    badam_mode: Literal["layer", "ratio"] = "layer"
    """BAdam: move one decoder layer at a time, or a share of each weight's entries."""

    badam_start_block: Count | None = None
    """BAdam by layers: the layer to begin with. Default: the first, or the last when descending."""

    badam_switch_mode: Literal["ascending", "descending", "random", "fixed"] = "ascending"
    """BAdam by layers: which one comes next."""

    badam_switch_interval: Annotated[int, Field(ge=-1, le=2**31)] = 50
    """BAdam by layers: steps on one layer; -1 stays with the first."""

    badam_update_ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    """BAdam by ratio: share of each weight's entries that are moved, others every 100 steps."""

    badam_mask_mode: Literal["adjacent", "scatter"] = "adjacent"
    """BAdam by ratio: whether the entries lie side by side or anywhere."""

    badam_verbose: Annotated[int, Field(ge=0, le=2)] = 0
    """BAdam: 1 notes each switch, 2 also the names of the weights."""

    learning_rate: PositiveFloat = 5e-5
    """Peak learning rate, reached at the end of warmup. LoRA usually wants 1e-4 to 5e-4, full tuning 5e-6 to 5e-5."""

    lora_learning_rate: PositiveFloat | None = None
    """Learning rate of LoRA's weights, where `learning_rate` rules what is trained beside them. Default: `learning_rate`."""

    loraplus_lr_ratio: PositiveFloat | None = None
    """LoRA+: the learning rate of LoRA's second matrix as a multiple of the first's; 16 is usual."""

    loraplus_lr_embedding: PositiveFloat = 1e-6
    """LoRA+: learning rate of LoRA weights on embeddings."""

    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay; never on biases and norms."""

    adam_beta1: Below1 = 0.9
    """Adam's decay of the mean gradient."""

    adam_beta2: Below1 = 0.999
    """Adam's decay of the mean squared gradient."""

    adam_epsilon: Annotated[float, Field(ge=1e-30, le=1, allow_inf_nan=False)] = 1e-8
    """Adam's guard against division by zero."""

    lr_scheduler_type: str = "linear"
    """Course of the learning rate, by Transformers' name; case does not matter. `tunesmith explain lr_scheduler_type`
    lists them."""

    lr_scheduler_kwargs: Mapping = {}
    """Further arguments of the schedule, as a mapping or JSON, such as `{"num_cycles": 2}`."""

    warmup_steps: NonNegativeFloat = 0
    """Steps in which the learning rate rises from 0: a number of steps, or a fraction of the run below 1."""

    max_grad_norm: NonNegativeFloat = 1.0
    """Gradients longer than this are scaled down to it; 0 turns it off. The length before is logged."""

    neftune_noise_alpha: PositiveFloat | None = None
    """NEFTune: in training, noise of up to alpha / sqrt(tokens x width) on the embeddings; 5 is usual."""

    label_smoothing_factor: Below1 = 0.0
    """Share of the loss that is the mean over the whole vocabulary instead of the label's, in training."""

    loss: str = "cross_entropy"
    """Loss of each trained token in training: `cross_entropy`, `dft`, `eaft` or `asft` (docs/optimizers.md). Evaluation is
    always by cross-entropy."""

    eaft_alpha: NonNegativeFloat = 1.0
    """`loss: eaft`: power of the entropy that each token's loss is multiplied with; 0 is cross-entropy."""

    asft_alpha: NonNegativeFloat = 0.1
    """`loss: asft`: how much it counts when the model says something else than before it was tuned; 0 is `dft`."""
