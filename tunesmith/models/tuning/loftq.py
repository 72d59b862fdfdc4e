"""LoRA that begins with what holding the base in few bits has lost (LoftQ, arXiv:2310.08659, with one iteration).

The base stays as it is held, so what is saved fits the base as anyone else holds it in the same way.  More iterations would
need a base of their own.
"""

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open

from tunesmith.log import ModelError, OptionError
from tunesmith.models import complete, quantized
from tunesmith.models.tuning.carried import ADAPTER
from tunesmith.models.where import Source


@torch.no_grad()
def start(model: PeftModel, source: Source) -> None:
    """Let B A be the best approximation of its rank to W - Q(W), for every layer whose base is held as Q(W).

    `source`: the base, as it was read.  Raises OptionError where its files hold no single weights.
    """
    weights = complete.check(source)
    if weights.pickled:
        raise OptionError("lora_init: loftq reads weights one by one, which .bin files do not allow; convert the base")
    places = {name: file for file in weights.files for name in complete.read_header(file)}
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer) or not quantized.is_held(layer.get_base_layer()):
            continue
        if f"{name}.weight" not in places:
            raise ModelError(f"{source.folder}: lora_init: loftq needs {name}.weight, which its files do not hold")
        with safe_open(places[f"{name}.weight"], framework="pt") as file:
            exact = file.get_tensor(f"{name}.weight").float()
        base = quantized.whole(layer.get_base_layer())
        left, sizes, right = torch.linalg.svd(exact.to(base.device) - base, full_matrices=False)
        first, second = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        roots = sizes[: len(first)].sqrt()
        first.zero_()[: len(roots)] = roots[:, None] * right[: len(roots)]
        second.zero_()[:, : len(roots)] = left[:, : len(roots)] * roots / layer.scaling[ADAPTER]
