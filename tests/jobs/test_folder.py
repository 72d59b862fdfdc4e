"""A run's folder is never taken at the price of what the run itself reads."""

from pathlib import Path

import pytest

from tunesmith.config.schema import SECTIONS, Config
from tunesmith.jobs import folder
from tunesmith.log import OptionError


def config(model: dict[str, object], train: dict[str, object]) -> Config:
    return Config(model=SECTIONS["model"](**model), train=SECTIONS["train"](**train))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a model in it, an adapter beside it, and a checkpoint."""
    for name in ("run/config.json", "run/model.safetensors", "run/checkpoint-4/trained.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("model", "train", "option"),
    [
        ({"model_name_or_path": "."}, {}, "model_name_or_path"),
        ({"adapter_name_or_path": ["elsewhere", "."]}, {}, "adapter_name_or_path"),
        ({"adapter_name_or_path": ["checkpoint-4"]}, {}, "adapter_name_or_path"),
        ({}, {"resume_from_checkpoint": "checkpoint-4"}, "resume_from_checkpoint"),
    ],
)
@pytest.mark.parametrize("take", [folder.check, lambda cfg: folder.claim(cfg, {})])
def test_what_is_read_is_not_overwritten(run, model, train, option, take, monkeypatch):
    monkeypatch.chdir(run)
    cfg = config(model, {"output_dir": str(run), "overwrite_output_dir": True, **train})
    with pytest.raises(OptionError, match=f"which {option} names; choose another output_dir"):
        take(cfg)
    assert (run / "model.safetensors").read_text() == "precious"
    assert (run / "checkpoint-4" / "trained.safetensors").read_text() == "precious"


def test_what_is_not_read_is_overwritten(run, tmp_path):
    cfg = config({"model_name_or_path": "a/hub-name"}, {"output_dir": str(run), "overwrite_output_dir": True})
    folder.check(cfg)
    claim = folder.claim(cfg, {})
    assert claim.checkpoint is None and not (run / "model.safetensors").exists()


def test_a_place_that_may_not_be_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    with (
        monkeypatch.context() as patch,
        pytest.raises(OptionError, match=r"output_dir: .* can't be looked at: Permission"),
    ):
        patch.setattr(Path, "stat", refuse)
        folder.check(config({}, {"output_dir": str(tmp_path / "closed" / "run")}))
