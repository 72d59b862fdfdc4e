"""Liger's kernels where there is no GPU: in Triton's interpreter, whose gaps are filled for a test."""

import importlib
import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def liger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Liger's kernels run on DEVICE, or skip the test where Liger is not installed."""
    if DEVICE == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is first imported
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")
    if DEVICE == "cuda":
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._implicit_cvt

    def with_floats(value: object) -> object:
        """Numbers as tensors, which compiled kernels are given."""
        if not isinstance(value, float):
            return convert(value)
        return tl.core.tensor(interpreter.TensorHandle(np.array([value], dtype=np.float32), tl.float32), tl.float32)

    monkeypatch.setattr(interpreter, "_implicit_cvt", with_floats)
    # The device's library of functions is not there.
    parts = {
        name: importlib.import_module(f"liger_kernel.ops.{name}") for name in ("rms_norm", "geglu", "cross_entropy")
    }
    monkeypatch.setattr(parts["rms_norm"], "rsqrt", lambda x: 1 / tl.sqrt(x))
    for name in ("geglu", "cross_entropy"):
        monkeypatch.setattr(parts[name], "tanh", lambda x: 1 - 2 / (tl.exp(2 * x) + 1))
