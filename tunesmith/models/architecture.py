"""Which class a model's folder asks for, and whether Python code of the folder may run.  Reads no weights.

An architecture that transformers knows runs transformers' code, whatever the folder brings and whatever is allowed.
"""

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from tunesmith.config.model import ModelConfig
from tunesmith.files import sha256_of
from tunesmith.log import ModelError
from tunesmith.models.complete import read_config
from tunesmith.models.where import Source

TASK = "AutoModelForCausalLM"


def code_that_runs(source: Source, cfg: ModelConfig) -> dict[str, str]:
    """The folder's Python files and their SHA-256 when loading this model runs them; empty when it does not.

    Raises ModelError for an architecture that transformers does not know and whose code is not there, not allowed, or
    not in the folder.
    """
    config = read_config(source.folder)
    kind = config.get("model_type")
    if kind in CONFIG_MAPPING:
        return {}
    where = source.folder / "config.json"
    unknown = f"{where}: transformers {transformers.__version__} does not know the architecture {kind!r}"
    files = sorted(path for path in source.folder.glob("*.py"))
    wanted = config.get("auto_map", {})
    if not files or TASK not in wanted or "AutoConfig" not in wanted:
        raise ModelError(f"{unknown}, and the folder brings no code for it")
    foreign = sorted(str(value) for value in wanted.values() if "--" in str(value))
    if foreign:
        raise ModelError(
            f"{unknown}; its code lies in another place ({foreign[0]}), which cannot be checked: copy it here"
        )
    if not cfg.trust_remote_code:
        names = ", ".join(path.name for path in files)
        raise ModelError(f"{unknown}; the folder brings code ({names}) that trust_remote_code=true would run, as you")
    return {path.name: sha256_of(path) for path in files}


def read(source: Source, cfg: ModelConfig) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """The model's configuration and its class.  Raises ModelError when it is no causal language model."""
    trusted = bool(code_that_runs(source, cfg))
    try:
        config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=trusted)
        config.get_text_config().to_dict()
    except Exception as failure:  # each architecture checks its config in its own way
        text = " ".join(str(failure).split())[:400]
        raise ModelError(f"{source.folder / 'config.json'}: {type(failure).__name__}: {text}") from failure
    if trusted:
        return config, get_class_from_dynamic_module(config.auto_map[TASK], source.folder, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{source.folder / 'config.json'}: {config.model_type} has no causal language model to train")
    return config, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
