"""Full tuning: every weight is trained.  Knows nothing of optimizers."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from tunesmith.config.tuning import TuningConfig
from tunesmith.models.precision import Precision, settle
from tunesmith.models.tuning import adapters as adapter_files
from tunesmith.models.where import Source


def apply(
    model: PreTrainedModel,
    cfg: TuningConfig,
    *,
    precision: Precision,
    adapters: Sequence[Source] = (),
    rows: Sequence[int] = (),
) -> PreTrainedModel:
    """The model, adapters merged into it, with every weight trained, `rows` of new tokens among them."""
    model = adapter_files.merge(model, adapters)
    model.requires_grad_(True)
    settle(model, precision)
    return model
