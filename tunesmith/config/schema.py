"""The whole config: sections inside, flat keys outside.  Knows the fields; knows nothing of files or flags."""

from functools import cache

from pydantic.fields import FieldInfo

from tunesmith.config.data import DataConfig
from tunesmith.config.evaluate import EvaluateConfig
from tunesmith.config.export import ExportConfig
from tunesmith.config.generate import GenerateConfig
from tunesmith.config.model import ModelConfig
from tunesmith.config.optim import OptimConfig
from tunesmith.config.section import Section
from tunesmith.config.train import TrainConfig
from tunesmith.config.tuning import TuningConfig

SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "tuning": TuningConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "generate": GenerateConfig,
    "export": ExportConfig,
    "evaluate": EvaluateConfig,
}


class Config(Section):
    """Every option of a run.  `cfg.optim.learning_rate` is the value users write as `learning_rate`."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    tuning: TuningConfig = TuningConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def flat(self) -> dict[str, object]:
        """Every option by its flat name, in the order of the sections."""
        return {name: value for _, section in self for name, value in section}


@cache
def fields() -> dict[str, tuple[str, FieldInfo]]:
    """Flat name -> (section, declaration), for every option there is."""
    return {name: (section, info) for section, cls in SECTIONS.items() for name, info in cls.model_fields.items()}
