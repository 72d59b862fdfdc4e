"""Fixtures of the models' tests: any architecture of the zoo, built once, and our own way to load it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import zoo
from transformers import PreTrainedModel

from tunesmith.config.model import ModelConfig
from tunesmith.models import load

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are computed several times as fast by one thread as by two that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder_of("gpt2")`: a folder with that architecture.  Read only."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = zoo.build(name, tmp_path_factory.mktemp("zoo") / name)
        return built[name]

    return folder


@pytest.fixture(scope="session")
def loaded() -> Callable[..., PreTrainedModel]:
    """`loaded(folder, dtype=..., trainable=...)` loads as a run does."""

    def load_it(
        folder: Path, dtype: torch.dtype = torch.float32, trainable: bool = True, **options: object
    ) -> PreTrainedModel:
        cfg = ModelConfig(model_name_or_path=str(folder), **options)
        source = load.find(cfg)
        attention = load.attention_for(source, cfg, dtype=dtype, device=CPU)
        return load.load_model(source, cfg, dtype=dtype, device=CPU, trainable=trainable, attention=attention)

    return load_it
