"""`tunesmith doctor`: whether what training promises holds on this machine, for this model and these options.

Every check compares two ways to the same numbers, with the parts that training uses.  The model is the one that the
options name, in its full width but with few layers, few words and random weights, so that a minute is enough and
nothing is downloaded but its config.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen2Config

from tunesmith.config.load import Loaded
from tunesmith.config.schema import Config
from tunesmith.data.batching.batches import Window, batch_of
from tunesmith.data.sample import IGNORED, Sample
from tunesmith.log import ModelError, muted, say
from tunesmith.models import architecture, save
from tunesmith.models.isolation import require_isolation
from tunesmith.models.predict import Predictor
from tunesmith.models.where import find
from tunesmith.optim import build, schedules
from tunesmith.train import checkpoint, loop
from tunesmith.train.objectives import NextToken
from tunesmith.train.passes import Plain
from tunesmith.train.policy import asked, layout_of, tuned
from tunesmith.train.position import Position
from tunesmith.train.runtime import Runtime, be_watched

LAYERS, WORDS = 2, 4096
"""Most layers and words that a patient keeps of its model."""

LENGTHS = (5, 17, 40, 9, 61, 23, 3, 34)
"""Tokens of the rows that everything is tried on."""

ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""How far two ways to the same numbers may part, as a share of their length, by the format they are computed in."""

SMALLEST = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
"""What is tried when the options name no model."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.  `apart`: how far its two ways parted, None where it could not be tried."""

    name: str
    apart: float | None
    allowed: float
    why: str = ""

    @property
    def holds(self) -> bool:
        return self.apart is None or self.apart <= self.allowed

    def line(self) -> str:
        """The finding on one line of the table."""
        if self.apart is None:
            return f"{self.name:36} {'-':>9} {self.allowed:>9.0e}  left out: {self.why}"
        return f"{self.name:36} {self.apart:>9.1e} {self.allowed:>9.0e}  {'holds' if self.holds else 'DOES NOT HOLD'}"


class Drawn:
    """Rows of random words, the first third of each not trained."""

    def __init__(self, rows: list[Sample]):
        self.rows = rows
        self.lengths = np.array([len(row.input_ids) for row in rows], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.rows[index]

    def where(self, index: int) -> str:
        return f"row {index}"


@dataclass(frozen=True, slots=True)
class Patient:
    """What is tried, made anew with the same weights by every `fresh`."""

    cfg: Config
    runtime: Runtime
    config: PreTrainedConfig
    rows: Drawn

    @property
    def allowed(self) -> float:
        kind = self.runtime.precision
        return ALLOWED[kind.autocast or kind.weights]

    def base(self) -> PreTrainedModel:
        """The model without anything that is trained beside it; a copy of the config, since models change theirs."""
        torch.manual_seed(self.cfg.train.seed)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            copy.deepcopy(self.config), dtype=self.runtime.precision.load_dtype(self.cfg.tuning)
        )
        made.config.use_cache = False
        return made.to(self.runtime.device).train()

    def tuned(self) -> nn.Module:
        """The model with what the options train; its own adapters are left out."""
        return tuned(self.cfg, self.base(), self.runtime, adapters=())

    def asked(self) -> Predictor:
        return asked(self.cfg, self.tuned(), self.runtime)

    def window(self, policy: Predictor, sizes: list[int]) -> Window:
        """A step over all rows, in micro-batches of `sizes`."""
        bounds = np.cumsum([0, *sizes])
        shares = [range(bounds[i], bounds[i + 1]) for i in range(len(sizes))]
        return window(self.rows, shares, policy)

    def gradient(self, policy: Predictor, window: Window) -> Tensor:
        """The gradient of a step's mean loss by all trained weights, float64 [numbers]."""
        objective = NextToken()
        weight = sum(objective.weight(batch) for batch in window.batches)
        policy.eval()  # dropout would make any two ways differ
        policy.zero_grad()
        loop.backward(Plain(policy, objective, self.runtime), window, self.runtime, weight)
        found = [weight.grad.double().flatten().cpu() for weight in policy.parameters() if weight.grad is not None]
        return torch.cat(found)

    @torch.no_grad()
    def logits(self, model: nn.Module) -> Tensor:
        """What the model says of the longest row, float64 [numbers]."""
        ids = max(self.rows.rows, key=lambda row: len(row.input_ids)).input_ids
        model.eval()
        with self.runtime.autocast():
            said = model(input_ids=torch.as_tensor(ids, dtype=torch.int64, device=self.runtime.device)[None])
        return said.logits.double().flatten().cpu()


def examine(loaded: Loaded) -> int:
    """Try everything and print a table; returns the exit code, 1 when something does not hold."""
    be_watched(loaded.config.train)
    runtime = Runtime(loaded.config.train, loaded.config.model)
    patient = patient_of(loaded.config, runtime)
    say(f"device        {runtime.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    say(f"processes     {runtime.world_size}")
    say(f"model         {described(patient)}")
    say(f"computes in   {runtime.precision.name}; {loaded.config.tuning.finetuning_type} tuning\n")
    say(f"{'':36} {'apart':>9} {'allowed':>9}")
    findings = []
    for check in CHECKS:
        with muted():
            found = list(check(patient))
        findings += found
        for finding in found:
            say(finding.line())
    broken = [finding.name for finding in findings if not finding.holds]
    say(f"\n{'everything holds' if not broken else f'{len(broken)} do not hold: ' + '; '.join(broken)}")
    runtime.close()
    return 1 if broken else 0


def patient_of(cfg: Config, runtime: Runtime) -> Patient:
    """What the options mean, made small.  Raises ModelError for a model that can't be found or is none."""
    config: PreTrainedConfig
    if cfg.model.model_name_or_path:
        config = copy.deepcopy(architecture.read(find(cfg.model), cfg.model)[0])
    else:
        config = Qwen2Config(vocab_size=512, num_key_value_heads=2, **SMALLEST)
    text = config.get_text_config()
    known = text.to_dict()
    text.num_hidden_layers = min(LAYERS, text.num_hidden_layers)
    text.vocab_size = min(WORDS, text.vocab_size)
    if known.get("layer_types"):
        text.layer_types = known["layer_types"][: text.num_hidden_layers]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, None)
    draw = np.random.default_rng(cfg.train.seed)
    rows = []
    for tokens in LENGTHS:
        ids = draw.integers(0, text.vocab_size, tokens, dtype=np.int32)
        rows.append(Sample(ids, np.where(np.arange(tokens) < tokens // 3, IGNORED, ids).astype(np.int32)))
    return Patient(cfg, runtime, config, Drawn(rows))


def described(patient: Patient) -> str:
    """The patient in a few words."""
    text, name = patient.config.get_text_config(), patient.cfg.model.model_name_or_path or "a small one of its own"
    return f"{name}: {patient.config.model_type}, width {text.hidden_size}, {text.num_hidden_layers} layers, random weights"


# -- the checks, in the order of the table


def accumulation(patient: Patient) -> Iterator[Finding]:
    """Many small micro-batches are one large one."""
    policy = patient.asked()
    large = patient.gradient(policy, patient.window(policy, [len(LENGTHS)]))
    small = patient.gradient(policy, patient.window(policy, [2] * (len(LENGTHS) // 2)))
    yield Finding("accumulation = one large batch", distance(small, large), patient.allowed)
    alone = patient.gradient(policy, patient.window(policy, [1] * len(LENGTHS)))
    way = "behind one another" if policy.ragged else "padded together"
    yield Finding(f"rows {way} = alone", distance(large, alone), patient.allowed)


def packing(patient: Patient) -> Iterator[Finding]:
    """Samples packed into one row are the same samples."""
    name = "packed = unpacked"
    policy = patient.asked()
    try:
        if not policy.ragged:
            with patient.runtime.autocast():
                require_isolation(patient.base())
    except ModelError as reason:
        yield Finding(name, None, patient.allowed, str(reason))
        return
    rows = patient.rows.rows
    ids, labels = np.concatenate([row.input_ids for row in rows]), np.concatenate([row.labels for row in rows])
    packed = Drawn([Sample(ids, labels, parts=LENGTHS)])
    step = window(packed, [[0]], policy)
    apart = patient.gradient(policy, patient.window(policy, [1] * len(LENGTHS)))
    yield Finding(name, distance(patient.gradient(policy, step), apart), patient.allowed)


def resuming(patient: Patient) -> Iterator[Finding]:
    """Two steps, a checkpoint, and two steps more are four steps, bit for bit."""
    with tempfile.TemporaryDirectory() as own:
        folder = Path(patient.runtime.from_main(own))
        straight = _trained(patient, folder, [4])
        resumed = _trained(patient, folder, [2, 2])
        patient.runtime.wait()  # before the folder goes
    same = all(torch.equal(straight[name], resumed[name]) for name in straight)
    apart = distance(*(torch.cat([one.double().flatten() for one in each.values()]) for each in (resumed, straight)))
    yield Finding("resumed = straight on, bit for bit", 0.0 if same else max(apart, 1e-300), 0.0)


def attention(patient: Patient) -> Iterator[Finding]:
    """Every way to compute attention that is here says the same."""
    model = patient.base()
    model.set_attn_implementation("eager")
    plain = patient.logits(model)
    for name in ("sdpa", "flash_attention_2"):
        try:
            model.set_attn_implementation(name)
        except (ImportError, ValueError):
            yield Finding(f"attention: {name} = eager", None, patient.allowed, "not installed, or not for this model")
        else:
            yield Finding(f"attention: {name} = eager", distance(patient.logits(model), plain), patient.allowed)


def adapters(patient: Patient) -> Iterator[Finding]:
    """An adapter changes nothing before it is trained, and the same merged as beside its base."""
    names = ("adapter at step 0 = base", "merged = unmerged")
    model = patient.tuned()
    if not isinstance(model, PeftModel):
        for name in names:
            yield Finding(
                name, None, patient.allowed, f"finetuning_type: {patient.cfg.tuning.finetuning_type} has none"
            )
        return
    yield Finding(names[0], distance(patient.logits(model), patient.logits(patient.base())), patient.allowed)
    draw = torch.Generator().manual_seed(patient.cfg.train.seed)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data = torch.randn(weight.shape, generator=draw).mul_(0.02).to(weight)
    beside = patient.logits(model)
    yield Finding(names[1], distance(patient.logits(model.merge_and_unload()), beside), patient.allowed)


def processes(patient: Patient) -> Iterator[Finding]:
    """Sums and gradients are those of all processes together."""
    runtime, name = patient.runtime, "sums over processes"
    count = runtime.world_size
    if count == 1:
        yield Finding(name, None, 0.0, "one process; nproc_per_node: 2 tries two")
        return
    (found,) = runtime.sums(runtime.rank + 1)
    yield Finding(name, abs(found - count * (count + 1) / 2), 0.0)
    asked = patient.asked()
    policy = runtime.prepare(asked)
    objective, mine = NextToken(), range(runtime.rank, len(LENGTHS), count)
    step = window(patient.rows, [mine], asked)
    (weight,) = runtime.sums(sum(objective.weight(batch) for batch in step.batches))
    policy.eval()
    loop.backward(Plain(policy, objective, runtime), step, runtime, weight)
    together = torch.cat([one.grad.double().flatten().cpu() for one in asked.parameters() if one.grad is not None])
    alone = patient.asked()
    # The loop multiplies by the number of processes, which only what `prepare` wraps divides by again.
    whole = patient.gradient(alone, patient.window(alone, [len(LENGTHS)])) / count
    apart = distance(together, whole)
    yield Finding("gradient of all processes = of one", apart, patient.allowed)


CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    accumulation, packing, resuming, attention, adapters, processes,
)  # fmt: skip


def window(rows: Drawn, shares: Sequence[Sequence[int]], policy: Predictor) -> Window:
    """A step over rows in micro-batches of these shares."""
    return Window(0, 0, [batch_of(rows, share, 0, layout_of(policy)) for share in shares], rows.where)


def distance(found: Tensor, truth: Tensor) -> float:
    """Length of the difference, as a share of the truth's."""
    return float((found - truth).norm() / truth.norm().clamp_min(1e-30))


def _trained(patient: Patient, folder: Path, parts: list[int]) -> dict[str, Tensor]:
    """The trained weights after `parts` steps, each part by a model of its own that goes on from the last one's checkpoint."""
    cfg, runtime, position = patient.cfg, patient.runtime, Position()
    for steps in parts:
        policy = patient.asked()
        model = policy.model
        optimizer = build.build(model, cfg.optim)
        runtime.use(optimizer)
        schedule = schedules.build(optimizer, cfg.optim, sum(parts))
        runtime.seed("dropout", cfg.train.seed)
        if position.step:
            place = folder / f"checkpoint-{position.step}"
            read = partial(_read, model)
            position = checkpoint.load(place, optimizer, schedule, runtime, read)
        windows = [patient.window(policy, [4, 4])] * steps
        prepared, objective = runtime.prepare(policy), NextToken()
        loop.fit(
            Plain(prepared, objective, runtime), prepared, objective, windows, optimizer, schedule, runtime, cfg.optim.max_grad_norm,
            asked_to_stop=lambda: None, on_step=lambda step: False,
        )  # fmt: skip
        position.step += steps
        checkpoint.save(folder, position, optimizer, schedule, runtime, partial(_write, model))
    return save.save_trained_exact(model)


def _write(model: nn.Module, folder: Path) -> None:
    save_file(save.save_trained_exact(model), folder / "trained.safetensors")


def _read(model: nn.Module, folder: Path) -> None:
    save.load_trained(model, folder / "trained.safetensors")
