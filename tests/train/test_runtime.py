"""What a process settles before it trains."""

import pytest

from tunesmith.config.model import ModelConfig
from tunesmith.config.train import TrainConfig
from tunesmith.train import runtime


@pytest.mark.parametrize(("left_out", "calls"), [([], 1), (["fused_loss"], 1), (["kept_memory"], 0)])
def test_freed_memory_is_kept_unless_that_is_left_out(
    monkeypatch: pytest.MonkeyPatch, left_out: list[str], calls: int
) -> None:
    called: list[None] = []
    monkeypatch.setattr(runtime, "_keep_freed_memory", lambda: called.append(None))
    runtime.Runtime(TrainConfig(), ModelConfig(model_name_or_path="a", device="cpu", disable_speedups=left_out))
    assert len(called) == calls
