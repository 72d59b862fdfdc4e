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


def test_accelerate_s_variables_change_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("USE_DEEPSPEED", "true"), ("USE_FSDP", "false"), ("GRADIENT_ACCUMULATION_STEPS", "4")):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    made = runtime.Runtime(TrainConfig(), ModelConfig(model_name_or_path="a", device="cpu"))
    assert made.accelerator.gradient_accumulation_steps == 1
    assert made.accelerator.state.deepspeed_plugin is None
    said = capsys.readouterr().err
    assert "ACCELERATE_USE_DEEPSPEED: has no effect here" in said and "FSDP" not in said
