"""Memory that runs out anywhere: a sentence with what takes less, exit code 4, and nothing that was there is lost."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith import cli, shortage
from tunesmith.data import pipeline
from tunesmith.export import command as export
from tunesmith.generate.transformers import TransformersEngine
from tunesmith.jobs import checkpoints
from tunesmith.log import ModelError, OutOfMemory
from tunesmith.models import weights
from tunesmith.train.foretelling import changes, cheaper, trial
from tunesmith.train.foretelling.cheaper import Situation, advice, cheapest
from tunesmith.train.judging import predict
from tunesmith.train.objectives import NextToken
from tunesmith.train.session import Session

CPU_WORDS = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"


def no_room(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def words(tiny_model: Path, rows: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`words("name", **options)`: a run of 4 steps in the folder `name`."""

    def made(name: str, **options: Any) -> list[str]:
        wanted = {
            "model_name_or_path": tiny_model, "dataset": "talk", "dataset_dir": rows, "template": "qwen",
            "output_dir": tmp_path / name, "per_device_train_batch_size": 8, "max_steps": 4, "save_steps": 2,
            "compute_type": "fp32", "disable_tqdm": True, "finetuning_type": "full", "learning_rate": 1e-2,
            "disable_speedups": "merged_batches",
        }  # fmt: skip
        return [f"{key}={value}" for key, value in (wanted | options).items()]

    return made


@pytest.fixture
def ends(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`ends("train", ...)` with exit code 4: the one line about it."""

    def line(*arguments: str) -> str:
        assert cli.main(list(arguments)) == 4
        told = capsys.readouterr()
        assert "Traceback" not in told.err and "internal error" not in told.err
        found = [each for each in told.err.splitlines() if each.startswith("out of memory")]
        assert len(found) == 1, told.err
        return found[0]

    return line


def test_before_the_first_step(
    words: Callable[..., list[str]], ends: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trial, "is_due", lambda needed, device: True)
    monkeypatch.setattr(cheaper, "free_bytes", lambda device: 1 << 20)
    monkeypatch.setattr(trial, "try_step", no_room)
    told = ends("train", *words("run"))
    assert told.startswith("out of memory before the first step: a step takes ")
    assert "(most of it " in told and "activations " in told and "Tried to allocate 2.00 GiB" in told
    one_row = "per_device_train_batch_size: 1 + gradient_accumulation_steps: 8"
    said = re.findall(r"(\w+: \w+(?: \+ \w+: \w+)*) would take ([\d.]+)", told)
    assert [text for text, _ in said] == [
        # the cheapest that fits needs all three
        "per_device_train_batch_size: 2 + gradient_accumulation_steps: 4 + gradient_checkpointing: auto + "
        "finetuning_type: lora",
        one_row, "gradient_checkpointing: true",
    ]  # fmt: skip
    assert float(said[0][1]) < float(said[2][1])
    assert not checkpoints.every(tmp_path / "run")


def test_in_a_step_older_checkpoints_stay_and_the_same_command_goes_on(
    words: Callable[..., list[str]], ends: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli.main(["train", *words("straight")]) == 0
    ask, asked = NextToken.__call__, list[int]()

    def fails_at_the_third(self: NextToken, *given: Any, **named: Any) -> Any:
        made = ask(self, *given, **named)
        asked.append(1)
        if len(asked) == 3:
            raise RuntimeError(CPU_WORDS)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(trial, "is_due", lambda needed, device: False)
        patch.setattr(NextToken, "__call__", fails_at_the_third)
        told = ends("train", *words("stopped"))
    assert told.startswith("out of memory in step 3: ") and told.endswith(
        "(can't allocate memory: you tried to allocate 8 bytes)"
    )
    assert [each.name for each in checkpoints.every(tmp_path / "stopped")] == ["checkpoint-2"]
    assert checkpoints.damage(tmp_path / "stopped" / "checkpoint-2") is None
    assert cli.main(["train", *words("stopped")]) == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "stopped"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_while_a_layer_is_measured(
    words: Callable[..., list[str]], ends: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the estimate comes from fewer rows, and names the same changes."""
    ask = NextToken.__call__

    def fails_if_large(self: NextToken, policy: Any, batch: Any, **named: Any) -> Any:
        if len(batch.rows) > 3:
            raise MemoryError
        return ask(self, policy, batch, **named)

    monkeypatch.setattr(NextToken, "__call__", fails_if_large)
    told = ends("train", *words("run"))
    assert told.startswith("out of memory before the first step: a step takes ")
    assert "per_device_train_batch_size: 2 + gradient_accumulation_steps: 4 would take" in told


def test_while_evaluating(
    words: Callable[..., list[str]], ends: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = NextToken.__call__

    def fails_if_large(self: NextToken, policy: Any, batch: Any, **named: Any) -> Any:
        return no_room() if len(batch.rows) > 3 and not policy.training else ask(self, policy, batch, **named)

    monkeypatch.setattr(NextToken, "__call__", fails_if_large)
    evaluated = words("run", eval_dataset="talk", per_device_eval_batch_size=16, eval_steps=2)
    for due in (True, False):
        monkeypatch.setattr(trial, "is_due", lambda needed, device, due=due: due)
        told = ends("train", *evaluated)
        assert told.startswith("out of memory while evaluating: per_device_eval_batch_size: 2 takes ")
    told = ends(
        "train", *words("none", do_train=False, do_eval=True, per_device_eval_batch_size=16, eval_dataset="talk")
    )
    assert "per_device_eval_batch_size: 2 takes " in told


def no_room_later(*given: Any, **named: Any) -> Iterator[str]:
    yield "a word"
    no_room()


def _fails(target: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(target, name, no_room)


ANYWHERE = {
    "loading": (_fails(weights.AutoModelForCausalLM, "from_pretrained"), "train", " was loaded in float32"),
    "loading to talk": (_fails(weights.AutoModelForCausalLM, "from_pretrained"), "chat", " was loaded in "),
    "preparing": (_fails(pipeline, "prepare"), "train", "while rows were prepared: fewer preprocessing_num_workers"),
    "answering": (
        lambda patch: patch.setattr(TransformersEngine, "stream", no_room_later),
        "chat",
        "while answering: a shorter conversation",
    ),
    "predicting": (_fails(predict, "answers"), "predict", "while answering: a smaller per_device_eval_batch_size"),
    "merging": (_fails(export, "_write_weights"), "export", "was made: nothing is left of it"),
}


@pytest.mark.parametrize(("breaks", "what", "told"), ANYWHERE.values(), ids=ANYWHERE)
def test_anywhere_else(
    words: Callable[..., list[str]],
    ends: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    tmp_path: Path,
    breaks: Callable[[pytest.MonkeyPatch], None],
    what: str,
    told: str,
) -> None:
    breaks(monkeypatch)
    commands = {
        "train": ["train", *words("run")],
        "predict": ["train", *words("run", do_train=False, do_predict=True, eval_dataset="talk")],
        "chat": ["chat", str(tiny_model), "--prompt", "Hello", "--template", "qwen"],
        "export": ["export", str(tiny_model), "--export_dir", str(tmp_path / "made" / "model")],
    }
    assert told in ends(*commands[what])
    assert not list((tmp_path / "made").glob("*"))


def raised(problem: BaseException, cause: BaseException | None = None) -> BaseException:
    problem.__cause__ = cause
    return problem


@pytest.mark.parametrize(
    ("problem", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError(CPU_WORDS), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (ImportError("libx.so: failed to map segment from shared object: Operation not permitted"), False),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("shape mismatch"), False),
        (raised(ModelError("m: can't be loaded"), MemoryError("for weights")), True),
        (ModelError("the row says: out of memory"), False),
        (raised(OutOfMemory("told"), MemoryError()), False),
    ],
)
def test_what_means_that_memory_ran_out(problem: BaseException, is_memory: bool) -> None:
    assert shortage.ran_out(problem) == is_memory


@pytest.fixture
def situation(words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Situation]:
    """`situation(**options)`: of a run that was just set up."""

    def made(**options: Any) -> Situation:
        found: list[Situation] = []

        def keep(self: Session) -> None:
            found.append(self.situation)
            raise OutOfMemory("enough")

        monkeypatch.setattr(Session, "_try_largest", keep)
        assert cli.main(["train", *words("run", overwrite_output_dir=True, **options)]) == 4
        return found[0]

    return made


@pytest.fixture
def said(situation: Callable[..., Situation]) -> Iterator[Callable[..., dict[str, float]]]:
    """Each change and the bytes that a step takes with it."""

    def changes(**options: Any) -> dict[str, float]:
        now = situation(**options)
        step = now.step(now.division)
        assert step is not None
        found = cheapest(now, step, None)
        return {each.change.text: each.memory.total for each in found} | {"now": now.peak(step).total}

    yield changes


def test_what_a_change_leaves_is_what_is_measured_with_it(said: Callable[..., dict[str, float]]) -> None:
    """Within a tenth."""
    now = said()
    half = "per_device_train_batch_size: 4 + gradient_accumulation_steps: 2"
    assert list(now) == [half, "gradient_checkpointing: true", "finetuning_type: lora", "now"]
    assert now[half] == pytest.approx(
        said(per_device_train_batch_size=4, gradient_accumulation_steps=2)["now"], rel=0.1
    )
    assert now["gradient_checkpointing: true"] == pytest.approx(said(gradient_checkpointing=True)["now"], rel=0.1)
    assert now["finetuning_type: lora"] == pytest.approx(said(finetuning_type="lora")["now"], rel=0.25)
    again = said(per_device_train_batch_size=1, gradient_checkpointing=True)
    assert list(again) == ["finetuning_type: lora", "compute_type: pure_bf16", "now"]
    pure = said(per_device_train_batch_size=1, gradient_checkpointing=True, compute_type="pure_bf16")["now"]
    assert pure <= again["compute_type: pure_bf16"] < again["now"]


def test_nothing_is_told_that_does_not_help(situation: Callable[..., Situation]) -> None:
    smallest = situation(
        per_device_train_batch_size=1, gradient_checkpointing=True, finetuning_type="lora", lora_rank=1
    )
    told = advice(smallest)
    assert told.count("would take") == 1 and "quantization_bit: 4 would take" in told
    step = smallest.step(smallest.division)
    assert step is not None
    linear = 4 * (32 * 32 * 2 + 32 * 16 * 2 + 32 * 64 * 3) * 2  # bytes of two layers in fp32
    (found,) = cheapest(smallest, step, None)
    assert step.weights - found.memory.weights == linear - linear // 4 * (0.5 + 4 / 64)


def test_the_smallest_run_needs_a_smaller_model(
    situation: Callable[..., Situation], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = situation(per_device_train_batch_size=1)
    monkeypatch.setattr(cheaper, "single", lambda cfg, **of: [])
    assert advice(now).endswith("; a smaller model takes less")


def test_rows_are_cut_to_half_the_longest(situation: Callable[..., Situation], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "SHORTEST_TOKENS", 2)
    now = situation(per_device_train_batch_size=1)
    longest = int(now.prepared.train.lengths.max())
    step = now.step(now.division)
    assert step is not None
    found = {each.change.text: each.memory for each in cheapest(now, step, None)}
    assert found[f"cutoff_len: {longest // 2}"].activations < 0.6 * step.peak().activations
