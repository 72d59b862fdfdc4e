"""Fixtures that every room's tests share.  What they build is tiny, random, seeded, and made once per session."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from surroundings import REPOSITORY, clean_environment
from warm import Warm

from tunesmith.config.load import DEBUG_VARIABLE

# Before torch is imported: tiny models gain nothing from a second thread, and threads that wait for one another cost
# many times the work where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nor do a few small functions gain from compilers in processes of their own, each of which imports torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# Whatever language the machine speaks.
os.environ["TUNESMITH_LANG"] = "en"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests without looking for garbage all the while, nor ever again among what was imported: each full
    look at torch and Transformers takes a third of a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_prepared_data(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests' prepared data out of the user's cache."""
    os.environ["TUNESMITH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def no_debugging() -> Iterator[None]:
    """A run with `debug: true` tells all that come after it in its process to show where errors come from; not in tests."""
    yield
    os.environ.pop(DEBUG_VARIABLE, None)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared fixtures beside the repository; tests that need it are skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared data beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Qwen2-shaped model (2 layers, hidden 32, vocabulary 600) with a ChatML tokenizer.  Read only."""
    import tiny

    return tiny.qwen2(tmp_path_factory.mktemp("tiny") / "qwen2")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, Llama-shaped.  Read only."""
    import tiny

    return tiny.llama(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """The process that commands are forked from."""
    process = Warm(tmp_path_factory.mktemp("warm"), clean_environment())
    yield process
    process.close()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_cli(tmp_path: Path) -> Run:
    """`run_cli("train", "x.yaml", input="...", env={...}, cwd=..., timeout=...)` runs `python -m tunesmith` in
    `tmp_path` and returns its exit code and output as text."""
    return runner(tmp_path, sys.executable, "-m", "tunesmith")


@pytest.fixture
def run_warm(warm: Warm, tmp_path: Path) -> Run:
    """The same, for commands that need torch and no interpreter of their own."""
    return runner(tmp_path, str(warm.bin / "tunesmith"))


def runner(tmp_path: Path, *program: str) -> Run:
    def run(
        *arguments: object,
        input: str | None = None,
        env: dict[str, str] | None = None,
        cwd: Path = tmp_path,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *map(str, arguments)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            encoding="utf-8",
            cwd=cwd,
            env=clean_environment() | (env or {}),
            timeout=timeout,
        )

    return run
