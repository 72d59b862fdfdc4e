"""`compute_type: fp8`: refused before a model is read where the device has none; where it has, runs learn as in bf16, go on
exactly, and write what others write.  Torch's scaled products work on a CPU too, which here says that it has them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.cli import main
from tunesmith.log import OptionError
from tunesmith.models import precision

Train = Callable[..., Path]

RUN = {"max_steps": 6, "save_steps": 3, "lr_scheduler_type": "constant", "compute_type": "fp8"}


@pytest.fixture
def has_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fp8", lambda device: True)


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "trainer_log.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.usefixtures("has_fp8")
@pytest.mark.parametrize(("kind", "rate", "count"), [("lora", 1e-2, 14), ("full", 2e-3, 14), ("freeze", 1e-2, 14)])
def test_runs_learn_as_in_bf16_and_go_on_exactly(
    kind: str, rate: float, count: int, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RUN | {"finetuning_type": kind, "learning_rate": rate, "freeze_trainable_layers": 1, "val_size": 4}
    if kind != "freeze":
        del options["freeze_trainable_layers"]
    whole = train("whole", **options)
    assert f"compute_type: {count} linear layers compute in fp8, the rest in bf16" in capsys.readouterr().err
    plain = train("plain", **options | {"compute_type": "bf16"})
    curves = losses(whole), losses(plain)
    assert curves[0] != curves[1]
    assert curves[0][-1] < curves[0][0] - 0.1
    assert all(abs(short - exact) < 0.02 * exact for short, exact in zip(*curves, strict=True))

    parted = train("parted", **options | {"max_steps": 3})
    train("parted", **options)
    name = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
    one, other, third = (load_file(folder / name) for folder in (whole, parted, plain))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert {n: (t.dtype, t.shape) for n, t in one.items()} == {n: (t.dtype, t.shape) for n, t in third.items()}


def test_it_is_refused_before_a_model_is_read(
    tiny_model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.models.load.read_weights", lambda *args, **kwargs: pytest.fail("a model was read"))
    words = [f"model_name_or_path={tiny_model}", "dataset=talk", f"dataset_dir={rows}", "template=qwen"]
    assert main(["train", *words, f"output_dir={tmp_path / 'run'}", "fp8=true"]) == 2
    told = capsys.readouterr().err
    assert "compute_type: fp8 needs a GPU of compute capability 8.9 or more; this cpu supports bf16, pure_bf16" in told


def test_few_bits_beside_it_are_refused(train: Train) -> None:
    with pytest.raises(OptionError, match="fp8 holds frozen weights in 8 bits itself"):
        train("both", compute_type="fp8", quantization_bit=4)
