"""One step by formulas and the same one traced in the trainer's own model, for the tests that compare them."""

from dataclasses import dataclass

from architectures import config

from tunesmith.config.schema import Config
from tunesmith.estimate import formula, shapes
from tunesmith.estimate.memory import Memory
from tunesmith.models.precision import BY_NAME
from tunesmith.train.foretelling.traced import Traced, trace

RANK = 8
METHODS = ("full", "lora", "qlora")
LENGTHS = ((512,), (2048,), (4096, 4096))


@dataclass(frozen=True)
class Both:
    """`numbers`: what is trained, by the formula."""

    said: Memory
    traced: Traced
    numbers: int

    def check(self) -> None:
        """Parameters and the optimizer's bytes are the same; the step takes the same within 3 %."""
        assert self.numbers == self.traced.trained
        assert self.said.weights + self.said.adapters == self.traced.weights
        assert self.said.optimizer == self.traced.optimizer
        most = self.traced.weights + self.traced.to_come
        assert abs(self.said.total / most - 1) <= 0.03, (str(self.said), most)


def both(
    name: str,
    method: str,
    lengths: tuple[int, ...],
    *,
    recomputed: bool,
    precision: str = "bf16",
    gpu: bool = True,
    optim: str = "adamw_torch",
    loss: str = "cross_entropy",
    smoothing: float = 0.0,
) -> Both:
    """The step of an architecture of `architectures.py`."""
    shape = shapes.read(config(name).to_dict())
    assert shape is not None
    bits = 4 if method == "qlora" else None
    kind = "lora" if method == "qlora" else method
    cfg = Config.model_validate(
        {
            "model": {"gradient_checkpointing": recomputed},
            "tuning": {"finetuning_type": kind, "lora_rank": RANK, "freeze_trainable_layers": 1},
            "optim": {"optim": optim, "loss": loss, "label_smoothing_factor": smoothing},
        }
    )
    adapted = shape.linears if kind == "lora" else ()
    made = formula.Method(kind, rank=RANK, adapted=adapted, trained_layers=1, bits=bits)
    places = sum(lengths) * 3 // 4
    way = formula.Way(formula.FORMATS[precision], "cuda" if gpu else "cpu", "everything" if recomputed else "")
    asked = formula.Loss(anchored=loss == "asft")
    step = formula.step(shape, made, formula.Load(lengths, places), way, optim, asked)
    traced = trace(cfg, config(name), BY_NAME[precision], lengths, places=places, gpu=gpu, bits=bits)
    return Both(step.peak(), traced, formula.trained(shape, made)[0])
