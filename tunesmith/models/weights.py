"""Reads a model's weights, all of them or none.  Knows Transformers' loading; knows no options."""

import hashlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers import logging as transformers_logging

from tunesmith.log import ModelError
from tunesmith.models.where import Source

LISTED = 5
"""Tensors named in a message; more are counted."""


def read_weights(
    source: Source,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    trusted: bool,
    quantization: BitsAndBytesConfig | None = None,
) -> PreTrainedModel:
    """The model with every tensor taken from the folder, rounded on the way where `quantization` says so.

    Raises ModelError naming the tensors when some are missing (tied ones aside), unexpected or of another shape.
    """
    with quiet():
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                source.folder,
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                device_map=None if device.type == "cpu" and quantization is None else {"": device},
                quantization_config=quantization,
                local_files_only=True,
                trust_remote_code=trusted,
                ignore_mismatched_sizes=True,  # so that they come back in the report, all of them, and are refused below
                output_loading_info=True,
            )
        except UnpicklingError as failure:  # torch's own words advise to run it
            raise ModelError(f"{source.folder}: its .bin files hold more than tensors; they are not read") from failure
        except Exception as failure:  # a config that makes no sense fails in as many ways as there are architectures
            raise ModelError(f"{source.folder}: the model cannot be loaded: {reason(failure)}") from failure
    _refuse_gaps(source, report)
    return model


def random_weights(
    config: PreTrainedConfig, *, dtype: torch.dtype, device: torch.device, attention: str, trusted: bool
) -> PreTrainedModel:
    """A model of this shape whose weights are drawn as its architecture begins, on a CPU wherever it goes, so that a seed
    says which.  Raises ModelError for a config that makes no model."""
    with quiet():
        try:
            made: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=attention, trust_remote_code=trusted
            )
        except Exception as failure:
            raise ModelError(f"{config.name_or_path}: the model cannot be made: {reason(failure)}") from failure
    return made.to(device)


def check_stored(model: PreTrainedModel, odd: Mapping[str, str], where: str) -> None:
    """Raise ModelError when a weight of the model is stored in `odd`, tensor -> type: as no floating-point numbers."""
    weights = dict(model.named_parameters())
    if found := next((name for name in odd if name in weights), None):
        raise ModelError(f"{where}: {found} is stored as {odd[found]}, so the weights are quantized or damaged")


def reason(failure: Exception) -> str:
    """A library's failure in one line, with its kind where its words alone say nothing."""
    text = " ".join(str(failure).split())[:400]
    return text if isinstance(failure, OSError | ValueError) and text else f"{type(failure).__name__}: {text}"


def check_finite(named: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raise ModelError naming the first tensor that holds a NaN or an infinity.  One pass, no copies."""
    name = first_not_finite(named)
    if name is not None:
        raise ModelError(f"{where}: the tensor {name} holds values that are not finite")


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor with a NaN or an infinity, or None."""
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.numel():
            least, most = torch.aminmax(tensor.detach())  # both are NaN when any value is
            if not (torch.isfinite(least) and torch.isfinite(most)):
                return name
    return None


@torch.no_grad()
def fingerprint(named: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of names, shapes, types and the sums of each tensor's bits, after the type of the first: equal for equal weights,
    another for others.  One pass, as fast as memory is read."""
    digest, first = hashlib.sha256(), ""
    for name, tensor in named:
        first = first or str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_sum_of_bits(tensor)}\n".encode())
    return f"{first}:{digest.hexdigest()[:32]}"


def _sum_of_bits(tensor: Tensor) -> int:
    """The sum of a tensor's bytes, read eight at a time as whole numbers, modulo 2^64: in any order the same."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if flat.storage_offset() % 8:
        flat = flat.clone()
    whole = flat.numel() // 8 * 8
    return int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].sum())


def _refuse_gaps(source: Source, report: dict[str, Any]) -> None:
    mismatched = {
        f"{name} (the file has {list(found)}, the model {list(wanted)})"
        for name, found, wanted in report["mismatched_keys"]
    }
    gaps = {
        "missing from the files": report["missing_keys"] - {name for name, _, _ in report["mismatched_keys"]},
        "unknown to the architecture": report["unexpected_keys"],
        "of another shape": mismatched,
    }
    problems = [f"{len(names)} tensors {what}: {_some(names)}" for what, names in gaps.items() if names]
    if problems:
        raise ModelError(f"{source.folder}: not all weights load: {'; '.join(problems)}")


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return ", ".join(ordered[:LISTED]) + more


@contextmanager
def quiet() -> Iterator[None]:
    """Without Transformers' own table of what did not load (we refuse with a sentence instead) and its words to
    programmers about names that change, and with its progress bar on a terminal only."""
    before, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(before)
        if bar:
            transformers_logging.enable_progress_bar()
