"""How weights are moved: optimizer, learning rate, its schedule, limits."""

from typing import Annotated

from pydantic import Field

from tunesmith.config.section import Below1, Mapping, NonNegativeFloat, PositiveFloat, Section


class OptimConfig(Section):
    optim: str = "adamw_torch"
    """Optimizer, by torch's or Transformers' name; case does not matter. `tunesmith explain optim` lists them."""

    optim_args: Mapping = {}
    """Further arguments of the optimizer, as a mapping, JSON or `key=value,key=value`, such as `momentum=0.9` for
    SGD."""

    learning_rate: PositiveFloat = 5e-5
    """Peak learning rate, reached at the end of warmup. LoRA usually wants 1e-4 to 5e-4, full tuning 5e-6 to 5e-5."""

    lora_learning_rate: PositiveFloat | None = None
    """Learning rate of LoRA's weights, when other weights are trained beside them."""

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
