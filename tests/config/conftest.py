"""What the config's tests share: a folder to work in, and loading with the two options every run needs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.config.load import DEBUG_VARIABLE, PARENT_VARIABLE, Loaded, load
from tunesmith.log import OptionError

NEEDED = ["--model_name_or_path", "m", "--dataset", "d"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty, so that no name is a file by chance."""
    monkeypatch.chdir(tmp_path)
    for name in ("LOCAL_RANK", "RANK", PARENT_VARIABLE, DEBUG_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what a test sets is gone after it
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def loaded() -> Callable[..., Loaded]:
    """`loaded("--seed", "1", yaml="...", command="train")`: the options over a model and a dataset."""

    def call(*arguments: str, yaml: str | bytes | None = None, command: str = "train") -> Loaded:
        files = []
        if yaml is not None:
            Path("x.yaml").write_bytes(yaml if isinstance(yaml, bytes) else yaml.encode())
            files = ["x.yaml"]
        return load([*files, *NEEDED, *arguments], command)

    return call


@pytest.fixture
def refused(loaded: Callable[..., Loaded]) -> Callable[..., list[str]]:
    """The same, for options that are wrong: the problems, one string each, and never more than these."""

    def call(*arguments: str, **more: str | bytes) -> list[str]:
        with pytest.raises(OptionError) as caught:
            loaded(*arguments, **more)
        assert str(caught.value).splitlines()[-1].endswith("nothing was started.")
        return list(caught.value.problems)

    return call
