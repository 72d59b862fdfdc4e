"""What may not go together about weights that are held in few bits."""

from collections.abc import Iterator

from tunesmith.config.rules.asked import Asked, Finding

BITS = {"bnb": (4, 8), "hqq": (2, 3, 4, 5, 6, 8)}
"""Library -> in how many bits it holds weights."""


def bits_of_the_method(asked: Asked) -> Iterator[Finding]:
    """Each library has its own widths."""
    model = asked.config.model
    known = BITS.get(model.quantization_method)
    if model.quantization_bit is not None and known and model.quantization_bit not in known:
        others = [name for name, bits in BITS.items() if model.quantization_bit in bits]
        text = f"{model.quantization_method} holds {' or '.join(map(str, known))} bits, not {model.quantization_bit}"
        text = f"{text}; quantization_method {others[0]} does"
        yield Finding("error", ("quantization_bit", "quantization_method"), text)


def nothing_to_hold(asked: Asked) -> Iterator[Finding]:
    """Options about the few bits, where there are none or others."""
    model = asked.config.model
    if asked.wrote("quantization_method") and model.quantization_bit is None:
        yield Finding("warning", ("quantization_method",), "has no effect without quantization_bit")
    for name in ("quantization_type", "double_quantization"):
        if asked.wrote(name) and (model.quantization_bit != 4 or model.quantization_method != "bnb"):
            yield Finding("warning", (name,), "has no effect unless quantization_bit is 4 and quantization_method bnb")


def frozen_weights_alone(asked: Asked) -> Iterator[Finding]:
    """Few bits are too few to train, to merge into, or to take a start out of."""
    bits, tuning = asked.config.model.quantization_bit, asked.config.tuning
    if bits is None:
        if tuning.lora_init == "loftq":
            text = "loftq makes up for what quantization_bit rounds away; write quantization_bit too"
            yield Finding("error", ("lora_init", "quantization_bit"), text)
        return
    if asked.command != "train":
        return
    if asked.config.model.compute_type == "fp8":
        text = "fp8 holds frozen weights in 8 bits itself; leave quantization_bit out, or choose compute_type: bf16"
        yield Finding("error", ("quantization_bit", "compute_type"), text)
    if tuning.finetuning_type in ("full", "freeze"):
        text = f"finetuning_type {tuning.finetuning_type} trains weights that would be held in few bits; choose lora"
        yield Finding("error", ("quantization_bit", "finetuning_type"), text)
    if tuning.lora_init in ("pissa", "olora"):
        text = f"{tuning.lora_init} takes its start out of weights that are held in few bits; loftq or kaiming go"
        yield Finding("error", ("lora_init", "quantization_bit"), text)
    adapters = len(asked.config.model.adapter_name_or_path)
    if adapters > 1 or (adapters and tuning.create_new_adapter):
        text = "adapters cannot be merged into weights of few bits; export a merged model first"
        yield Finding("error", ("quantization_bit", "adapter_name_or_path"), text)
