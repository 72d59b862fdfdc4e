"""What a CPU cannot prove: kernels of a GPU compute what plain products do, and whole runs on one go on exactly.  Whatever makes
sense on a CPU runs there too, so that this file stays valid; `make test-gpu` is the whole of it in a few minutes."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from tunesmith.config.model import ModelConfig
from tunesmith.config.train import TrainConfig
from tunesmith.data.batching.collate import join
from tunesmith.data.sample import EVERYTHING, IGNORED, Sample
from tunesmith.jobs.start import train_command
from tunesmith.losses import kernels
from tunesmith.models import flex, precision, ragged
from tunesmith.models.predict import predictor
from tunesmith.models.recompute import ASKED, recompute
from tunesmith.models.tuning.fused import fuse
from tunesmith.train.runtime import Runtime

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_A_GPU = pytest.mark.skipif(DEVICE.type != "cuda", reason="it needs a GPU")
LENGTHS = (33, 129, 1, 64, 300)


def model(**changes: object) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(**shape, num_key_value_heads=2, vocab_size=tiny.VOCABULARY, use_cache=False, **changes)
    return Qwen2ForCausalLM(config).to(DEVICE, torch.bfloat16)


def adapted() -> nn.Module:
    torch.manual_seed(1)
    made = get_peft_model(model(), LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in made.named_parameters():
        if weight.requires_grad:
            weight.data = 0.02 * torch.randn_like(weight.float()) if "lora_B" in name else weight.data.float()
    return made


def learned(made: nn.Module, ids: Tensor) -> list[Tensor]:
    with torch.autocast(DEVICE.type, torch.bfloat16):
        loss = made(input_ids=ids, labels=ids).loss
    loss.backward()
    return [loss.detach().float(), *(weight.grad.float() for weight in made.parameters() if weight.grad is not None)]


def apart(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest distance, as a share of a tensor's length."""
    pairs = zip(found, wanted, strict=True)
    return max(float((one - other).norm() / other.norm().clamp(min=1e-6)) for one, other in pairs)


def eager(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    done = []
    for q, k, v in zip(*(each.split(LENGTHS, 2) for each in (query, key, value)), strict=True):
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        mask = ragged.causal(q.shape[2], window, q.dtype, q.device)
        done.append(torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + mask, -1) @ v)
    return torch.cat(done, 2).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("kind", ["ragged", pytest.param("flex", marks=ON_A_GPU)])
def test_kernels_for_rows_of_different_lengths_are_plain_products(kind: str, window: int | None) -> None:
    attend = {"ragged": ragged.attend, "flex": flex.attend}[kind]
    made = torch.Generator(DEVICE).manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), 64) for heads in (4, 2, 2)]
    exact = [torch.randn(shape, generator=made, device=DEVICE) for shape in shapes]
    bounds = F.pad(torch.tensor(LENGTHS), (1, 0)).cumsum(0).int().to(DEVICE)

    def found(dtype: torch.dtype, plain: bool) -> list[Tensor]:
        given = [each.to(dtype, copy=True).requires_grad_() for each in exact]
        if plain:
            out = eager(*given, window)
        else:
            told = {"sliding_window": window, "cu_seq_lens_q": bounds, "max_length_q": max(LENGTHS)}
            out, _ = attend(nn.Module(), *given, None, **told)
        (out.float() * torch.arange(out.numel(), device=DEVICE).view(out.shape).cos()).sum().backward()
        return [each.detach().float() for each in (out, *(tensor.grad for tensor in given))]

    truth = found(torch.float32, plain=True)
    assert apart(found(torch.bfloat16, plain=False), truth) <= 1.5 * apart(found(torch.bfloat16, plain=True), truth)


def test_lora_in_one_step_is_peft_s() -> None:
    ids = torch.arange(3, 131, device=DEVICE).view(2, 64)
    plain, fused = adapted(), adapted()
    assert fuse(fused) == 14
    assert apart(learned(fused, ids), learned(plain, ids)) < 3e-2


@pytest.mark.parametrize("untrained", [0, 16])
def test_rows_without_padding_say_what_each_says_alone(untrained: int) -> None:
    """With `untrained` tokens at the start of each, which they share, and which then come once."""
    plain = model()
    asked = predictor(model())
    assert asked.ragged and asked.shares and asked.head is not None
    rows = [torch.arange(5, 5 + tokens).numpy().astype("int32") for tokens in (20, 18, 50)]
    labels = [np.where(np.arange(len(row)) < untrained, IGNORED, row).astype("int32") for row in rows]
    samples = [Sample(row, label) for row, label in zip(rows, labels, strict=True)]
    batch = join(samples, range(3), share=EVERYTHING).map(lambda each: each.to(DEVICE))
    assert (batch.shared is not None) == (untrained > 0)
    said = asked(batch.input_ids, batch.position_ids, None, batch.places, batch.bounds, batch.longest, batch.shared)
    wanted = sum(
        F.cross_entropy(plain(torch.tensor(row, device=DEVICE)[None]).logits[0, :-1].float(), ids[1:], reduction="sum")
        for row, ids in zip(rows, (torch.tensor(each, device=DEVICE).long() for each in labels), strict=True)
    )
    assert abs(float(said.cross_entropy(batch.targets)) / float(wanted) - 1) < 5e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_functions_of_the_loss_agree(dtype: torch.dtype) -> None:
    made = torch.Generator(DEVICE).manual_seed(0)
    hidden = torch.randn(700, 256, generator=made, device=DEVICE).to(dtype)
    weight = (0.02 * torch.randn(5000, 256, generator=made, device=DEVICE)).to(dtype).requires_grad_()
    targets = torch.randint(5000, (700,), generator=made, device=DEVICE)
    timed = kernels.clock(DEVICE) if DEVICE.type == "cuda" else lambda name, call: 1.0
    choice = kernels.choose(kernels.there(DEVICE.type), hidden, weight, targets, timed=timed)
    assert set(choice.refused) <= ({"torch"} if dtype == torch.bfloat16 else set())
    assert all(taken > 0 for taken in choice.milliseconds.values())


@pytest.mark.parametrize("written", [True, "selective", "offload"])
def test_recomputing_changes_no_gradient(written: bool | str) -> None:
    ids = torch.arange(3, 131, device=DEVICE).view(2, 64)
    wanted, again = adapted(), adapted()
    recompute(again.get_base_model(), ASKED[written])
    again.train()
    wanted.train()
    assert apart(learned(again, ids), learned(wanted, ids)) < 1e-3


@ON_A_GPU
def test_batches_lie_where_a_gpu_reads_by_itself() -> None:
    runtime = Runtime(TrainConfig(), ModelConfig())
    row = torch.arange(20).numpy().astype("int32")
    batch = runtime.pinned(join([Sample(row, row)], [0]))
    assert batch.input_ids.is_pinned() and batch.places.is_pinned()
    assert torch.equal(runtime.to_device(batch).input_ids.cpu(), batch.input_ids)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Path]:
    draw = random.Random(0)
    rows = [
        {"instruction": " ".join(draw.choices(tiny.WORDS, k=6)), "output": " ".join(draw.choices(tiny.WORDS, k=9))}
        for _ in range(24)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    made = model(pad_token_id=0, eos_token_id=2, bos_token_id=None)
    made.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")

    def run(name: str, **options: object) -> Path:
        folder = tmp_path / name
        wanted = {
            "model_name_or_path": tmp_path / "model", "dataset": tmp_path / "rows.json", "template": "qwen",
            "output_dir": folder, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1,
            "lr_scheduler_type": "constant", "save_steps": 4, "disable_tqdm": True, "plot_loss": False,
        }  # fmt: skip
        assert train_command([f"{key}={value}" for key, value in (wanted | options).items()]) == 0
        return folder

    return run


KINDS = {
    "lora in bf16": {"compute_type": "bf16"},
    "lora in fp16, with a scaler": {"compute_type": "fp16"},
    "lora, recorded": {"cuda_graphs": True},
    "lora, recorded, with a scaler": {"cuda_graphs": True, "compute_type": "fp16"},
    "lora, recorded, recomputed": {"cuda_graphs": True, "gradient_checkpointing": True},
    "full, recorded": {"cuda_graphs": True, "finetuning_type": "full", "learning_rate": 1e-3},
    "lora in fp8": {"compute_type": "fp8"},
    "full in fp8": {"compute_type": "fp8", "finetuning_type": "full", "learning_rate": 1e-3},
    "full, offloaded": {"finetuning_type": "full", "gradient_checkpointing": "offload", "learning_rate": 1e-3},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_runs_learn_and_go_on_exactly(options: dict[str, object], train: Callable[..., Path]) -> None:
    kind = options.get("compute_type")
    if kind is not None and kind not in precision._supported(DEVICE):
        pytest.skip(f"this {DEVICE.type} does not compute in {kind}")
    whole = train("whole", **options, max_steps=8)
    train("parts", **options, max_steps=4)
    parts = train("parts", **options, max_steps=8)
    losses = [json.loads(line)["loss"] for line in (whole / "trainer_log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 0.1
    name = "model.safetensors" if options.get("finetuning_type") == "full" else "adapter_model.safetensors"
    one, other = load_file(whole / name), load_file(parts / name)
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@ON_A_GPU
def test_what_is_recorded_is_what_was_written(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The same losses, from micro-batches that were filled up, and no word that recording was left out."""
    told = {"per_device_train_batch_size": 2, "max_steps": 12}
    plain, recorded = train("plain", **told), train("recorded", **told, cuda_graphs=True)
    one, other = (
        [json.loads(line)["loss"] for line in (run / "trainer_log.jsonl").read_text().splitlines()]
        for run in (plain, recorded)
    )
    assert other == pytest.approx(one, rel=2e-2)
    assert "cuda_graphs" not in capsys.readouterr().err
