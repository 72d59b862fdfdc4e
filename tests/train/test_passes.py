"""Micro-batches that are recorded: of few sizes, they cost what they cost; done again, they add the same gradients."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tape import Tape
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from tunesmith.config.model import ModelConfig
from tunesmith.config.train import TrainConfig
from tunesmith.data.batching.collate import join
from tunesmith.data.batching.fixed import LEAST, few, fixed, size_of
from tunesmith.data.sample import IGNORED, Batch, Sample
from tunesmith.log import RunError
from tunesmith.models import ragged
from tunesmith.models.predict import Predictor, predictor
from tunesmith.train import loop, passes
from tunesmith.train.objectives import NextToken
from tunesmith.train.passes import Plain, Recorded
from tunesmith.train.runtime import Runtime

CPU = torch.device("cpu")


def samples(seed: int, count: int, *, weighed: bool = False) -> list[Sample]:
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ids = draw.integers(5, 90, int(draw.integers(3, 40))).astype("int32")
        labels = np.where(draw.random(len(ids)) < 0.6, ids, IGNORED).astype("int32")
        weights = draw.random(len(ids)).astype("float32") * (labels != IGNORED) if weighed else None
        made.append(Sample(ids, labels, weights=weights))
    return made


def batches(count: int, *, weighed: bool = False) -> list[Batch]:
    return [join(samples(seed, 1 + seed % 5, weighed=weighed), range(1 + seed % 5)) for seed in range(count)]


def dense(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **told: Any) -> Any:
    """Attention within rows by their bounds alone, as a GPU's kernel has it: Python never reads them."""
    _, heads, tokens, width = query.shape
    places = torch.arange(tokens)
    row = torch.searchsorted(told["cu_seq_lens_q"], places, right=True, out_int32=True)
    seen = (row[:, None] == row) & (places[:, None] >= places)
    key, value = (each.repeat_interleave(heads // each.shape[1], 1) for each in (key, value))
    scores = (query @ key.transpose(2, 3) * width**-0.5).masked_fill(~seen, -torch.inf)
    return (torch.softmax(scores, -1) @ value).transpose(1, 2).contiguous(), None


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(TrainConfig(), ModelConfig(device="cpu", compute_type="fp32"))


@pytest.fixture
def policy() -> Predictor:
    return made()


def made() -> Predictor:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    asked = predictor(Qwen2ForCausalLM(Qwen2Config(**shape, num_key_value_heads=2, vocab_size=96, use_cache=False)))
    assert asked.ragged and asked.head is not None
    return asked


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, policy: Predictor) -> Predictor:
    monkeypatch.setattr(ragged, "attend", dense)
    ragged.register()
    yield policy
    monkeypatch.undo()
    ragged.register()


def learned(compute: Any, policy: Predictor, rows: list[Batch]) -> tuple[list[float], list[Tensor]]:
    """Costs of the batches, and the gradients they add up to."""
    for weight in policy.parameters():
        weight.grad = None
    costs = [float(compute(batch, 0.25)) for batch in rows]
    return costs, [weight.grad.clone() for weight in policy.parameters()]


def same(found: tuple[list[float], list[Tensor]], wanted: tuple[list[float], list[Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    for one, other in zip(found[1], wanted[1], strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(other.norm()) + 1e-9


@pytest.mark.parametrize("weighed", [False, True])
def test_filling_up_changes_no_cost_and_no_gradient(policy: Predictor, runtime: Runtime, weighed: bool) -> None:
    plain = Plain(policy, NextToken(), runtime)
    rows = batches(12, weighed=weighed)
    filled = [fixed(batch) for batch in rows]
    same(learned(plain, policy, filled), learned(plain, policy, rows))
    for one, other in zip(filled, rows, strict=True):
        assert one.tokens == other.tokens and one.loss_tokens == other.loss_tokens
        assert one.loss_weight == pytest.approx(other.loss_weight, rel=1e-6)
        assert (
            one.places.unique().numel() >= len(one.places) - one.idle and int(one.places.max()) < one.input_ids.numel()
        )
        assert int(one.bounds[-1]) == one.input_ids.numel() and int(one.bounds.diff().max()) <= one.longest
    assert len(set(map(size_of, filled))) < len(set(map(size_of, rows)))


def test_sizes_are_few_and_add_an_eighth_at_the_most() -> None:
    counts = range(1, 1 << 14)
    assert all(count <= few(count) < count + max(LEAST, count / 8 + 1) for count in counts)
    assert len({few(count) for count in counts if count > 1 << 13}) == 8
    assert [few(few(count)) for count in counts] == [few(count) for count in counts]


@pytest.mark.parametrize("weighed", [False, True])
def test_what_is_recorded_adds_the_gradients_of_each_new_micro_batch(
    as_on_a_gpu: Predictor, runtime: Runtime, weighed: bool
) -> None:
    policy, tape = as_on_a_gpu, Tape()
    tape.trained = list(policy.parameters())
    plain = Plain(policy, NextToken(), runtime)
    rows = [fixed(batch) for batch in batches(24, weighed=weighed)]
    wanted = learned(plain, policy, rows)
    same(learned(Recorded(plain, tape, CPU), policy, rows), wanted)
    sizes = len(set(map(size_of, rows)))
    assert tape.recorded and tape.recorded <= sizes and tape.played == 24 - sizes


@pytest.mark.usefixtures("as_on_a_gpu")
def test_weights_that_move_are_the_ones_that_are_used(runtime: Runtime) -> None:
    """Steps of an optimizer between them: the same weights at the end."""

    def trained(recorded: bool) -> list[Tensor]:
        asked = made()
        tape, plain = Tape(), Plain(asked, NextToken(), runtime)
        tape.trained = list(asked.parameters())
        compute = Recorded(plain, tape, CPU) if recorded else plain
        optimizer = torch.optim.SGD(asked.parameters(), lr=0.3)
        for batch in rows:
            compute(batch, 1 / batch.loss_weight)
            optimizer.step()
            optimizer.zero_grad(set_to_none=not compute.keeps_gradients)
        assert not recorded or tape.played > 6
        return [weight.detach() for weight in asked.parameters()]

    rows = [fixed(batch) for batch in batches(24)]
    for one, other in zip(trained(True), trained(False), strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())


def test_a_model_that_has_the_host_wait_is_computed_as_written(
    as_on_a_gpu: Predictor, runtime: Runtime, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As attention row by row does, which reads the bounds."""

    def waits(module: nn.Module, *states: Any, **told: Any) -> Any:
        assert [end.item() for end in told["cu_seq_lens_q"]]
        return dense(module, *states, **told)

    monkeypatch.setattr(ragged, "attend", waits)
    ragged.register()
    policy, tape = as_on_a_gpu, Tape()
    plain = Plain(policy, NextToken(), runtime)
    rows = [fixed(batch) for batch in batches(12)]
    wanted = learned(plain, policy, rows)
    same(learned(Recorded(plain, tape, CPU), policy, rows), wanted)
    assert tape.recorded == 0
    assert capsys.readouterr().err.count("cuda_graphs: left out: this model has the host wait for the GPU") == 1


def test_what_can_t_be_recorded_after_all_is_one_sentence(
    as_on_a_gpu: Predictor, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape()
    monkeypatch.setattr(tape, "record", lambda run: (_ for _ in ()).throw(RuntimeError("not permitted\nmore")))
    compute = Recorded(Plain(as_on_a_gpu, NextToken(), runtime), tape, CPU)
    (batch,) = (fixed(each) for each in batches(1))
    compute(batch, 1.0)
    with pytest.raises(RunError, match=r"a step of this model can't be recorded \(not permitted\); set it to false"):
        compute(batch, 1.0)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("options", [{}, {"finetuning_type": "full", "learning_rate": 1e-3}, {"packing": True}])
def test_a_whole_run_is_the_same_recorded(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(ragged, "attend", dense)
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    fit = loop.fit

    def told(compute: Any, policy: nn.Module, *rest: Any, **more: Any) -> None:
        if isinstance(compute, Recorded):
            tapes[-1].trained = [weight for weight in policy.parameters() if weight.requires_grad]
        fit(compute, policy, *rest, **more)

    monkeypatch.setattr(loop, "fit", told)
    options = {"num_train_epochs": 4, "disable_speedups": "even_sizes", **options}
    plain = train("plain", **options)
    monkeypatch.setattr(passes, "_recorder", recorder)
    recorded = train("recorded", **options, cuda_graphs=True)
    assert losses(recorded) == pytest.approx(losses(plain), rel=1e-4)
    assert tapes[0].played > 2
    monkeypatch.undo()
    ragged.register()


def test_a_cpu_has_no_graphs(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert losses(train("asked", cuda_graphs=True, max_steps=2)) == losses(train("plain", max_steps=2))
    assert "cuda_graphs: left out: there are none on a CPU" in capsys.readouterr().err


def test_badam_changes_what_is_trained(train: Callable[..., Path]) -> None:
    with pytest.raises(Exception, match="cuda_graphs"):
        train("refused", cuda_graphs=True, optim="badam", finetuning_type="full")


def test_torch_records_and_watches_as_is_asked() -> None:
    """The names that are used where a GPU is; nothing of them runs here."""
    import inspect

    assert {"pool", "stream", "capture_error_mode"} <= set(inspect.signature(torch.cuda.graph.__init__).parameters)
    assert "warn" in inspect.getsource(torch.cuda.set_sync_debug_mode)
