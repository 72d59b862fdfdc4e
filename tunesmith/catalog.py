"""The index page: every name a user may write -> "module:attribute", imported on first use.  Imports nothing heavy.

Adding a thing is one file, one line here, one test.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from tunesmith.log import MissingExtra, OptionError

KINDS: dict[str, tuple[str, str]] = {
    "stage": ("stage", "stage"),
    "tuning": ("finetuning_type", "method"),
    "optimizer": ("optim", "optimizer"),
    "schedule": ("lr_scheduler_type", "schedule"),
    "loss": ("loss", "loss"),
    "template": ("template", "template"),
    "format": ("formatting", "data format"),
    "tracker": ("report_to", "tracker"),
}
"""Kind -> the option in which its names are written, and what one of them is called."""

STAGES = {
    "pt": "tunesmith.train.stages:pt",
    "sft": "tunesmith.train.stages:sft",
}

TUNING = {
    "full": "tunesmith.models.tuning.full:apply",
    "freeze": "tunesmith.models.tuning.freeze:apply",
    "lora": "tunesmith.models.tuning.lora:apply",
    "qlora": "tunesmith.models.tuning.lora:apply",
}

OPTIMIZERS = {
    "adamw_torch": "torch.optim:AdamW",
    "adamw_torch_fused": "torch.optim:AdamW",
    "adamw": "torch.optim:AdamW",
    "adam": "torch.optim:Adam",
    "adamax": "torch.optim:Adamax",
    "nadam": "torch.optim:NAdam",
    "radam": "torch.optim:RAdam",
    "adafactor": "torch.optim:Adafactor",
    "adagrad": "torch.optim:Adagrad",
    "adadelta": "torch.optim:Adadelta",
    "rmsprop": "torch.optim:RMSprop",
    "rprop": "torch.optim:Rprop",
    "asgd": "torch.optim:ASGD",
    "sgd": "torch.optim:SGD",
    "muon": "tunesmith.optim.muon:Muon",
    "adam_mini": "tunesmith.optim.adam_mini:AdamMini",
    "galore_adamw": "tunesmith.optim.low_rank:GaLoreAdamW",
    "galore_adafactor": "tunesmith.optim.low_rank:GaLoreAdafactor",
    "apollo_adamw": "tunesmith.optim.low_rank:APOLLOAdamW",
    "badam": "tunesmith.optim.badam:BAdam",
    "grokadamw": "tunesmith.optim.grokadamw:GrokAdamW",
    "stable_adamw": "optimi:StableAdamW",
    "schedule_free_adamw": "schedulefree:AdamWScheduleFree",
    "schedule_free_radam": "schedulefree:RAdamScheduleFree",
    "schedule_free_sgd": "schedulefree:SGDScheduleFree",
    "adamw_torch_8bit": "torchao.optim:AdamW8bit",
    "adamw_torch_4bit": "torchao.optim:AdamW4bit",
    "adamw_8bit": "bitsandbytes.optim:AdamW8bit",
    "adamw_bnb_8bit": "bitsandbytes.optim:AdamW8bit",
    "paged_adamw_32bit": "bitsandbytes.optim:PagedAdamW32bit",
    "paged_adamw_8bit": "bitsandbytes.optim:PagedAdamW8bit",
    "lion_32bit": "bitsandbytes.optim:Lion32bit",
    "lion_8bit": "bitsandbytes.optim:Lion8bit",
    "paged_lion_32bit": "bitsandbytes.optim:PagedLion32bit",
    "paged_lion_8bit": "bitsandbytes.optim:PagedLion8bit",
    "ademamix": "bitsandbytes.optim:AdEMAMix",
    "ademamix_8bit": "bitsandbytes.optim:AdEMAMix8bit",
    "paged_ademamix_32bit": "bitsandbytes.optim:PagedAdEMAMix",
    "paged_ademamix_8bit": "bitsandbytes.optim:PagedAdEMAMix8bit",
    "rmsprop_bnb": "bitsandbytes.optim:RMSprop32bit",
    "rmsprop_bnb_32bit": "bitsandbytes.optim:RMSprop32bit",
    "rmsprop_bnb_8bit": "bitsandbytes.optim:RMSprop8bit",
}
"""Of torch's, two are left out: LBFGS (it calls the loss again within a step) and SparseAdam (sparse gradients only)."""

EXTRAS = {"bitsandbytes": "bitsandbytes", "optimi": "optimi", "schedulefree": "schedulefree", "torchao": "torchao"}
"""Package that is not always installed -> our extra that brings it."""

SCHEDULES = dict.fromkeys(
    (
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
        "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
    ),
    "tunesmith.optim.schedules:build",
)  # fmt: skip

LOSSES = {
    "cross_entropy": "tunesmith.losses.linear:linear_cross_entropy",
    "dft": "tunesmith.losses.tokens:dft",
    "eaft": "tunesmith.losses.tokens:eaft",
    "asft": "tunesmith.losses.tokens:asft",
}

FORMATS = {
    "alpaca": "tunesmith.data.reading.formats:alpaca",
    "sharegpt": "tunesmith.data.reading.formats:sharegpt",
    "openai": "tunesmith.data.reading.formats:openai",
    "text": "tunesmith.data.reading.formats:text",
}

TRACKERS = {
    "tensorboard": "accelerate.tracking:TensorBoardTracker",
    "wandb": "accelerate.tracking:WandBTracker",
    "mlflow": "accelerate.tracking:MLflowTracker",
    "swanlab": "accelerate.tracking:SwanLabTracker",
    "trackio": "accelerate.tracking:TrackioTracker",
}

TEMPLATES = {
    "aeva": "tunesmith.templates.families.glm:AEVA",
    "alpaca": "tunesmith.templates.families.plain:ALPACA",
    "bailing": "tunesmith.templates.families.roles:BAILING",
    "bailing_v2": "tunesmith.templates.families.roles:BAILING_V2",
    "breeze": "tunesmith.templates.families.plain:BREEZE",
    "chatglm3": "tunesmith.templates.families.glm:CHATGLM3",
    "chatml": "tunesmith.templates.families.chatml:CHATML",
    "chatml_de": "tunesmith.templates.families.chatml:CHATML_DE",
    "cohere": "tunesmith.templates.families.roles:COHERE",
    "cpm4": "tunesmith.templates.families.chatml:CPM4",
    "dbrx": "tunesmith.templates.families.chatml:DBRX",
    "deepseek": "tunesmith.templates.families.deepseek:DEEPSEEK",
    "deepseek3": "tunesmith.templates.families.deepseek:DEEPSEEK3",
    "deepseekcoder": "tunesmith.templates.families.deepseek:DEEPSEEKCODER",
    "deepseekr1": "tunesmith.templates.families.deepseek:DEEPSEEKR1",
    "default": "tunesmith.templates.families.plain:DEFAULT",
    "dots_ocr": "tunesmith.templates.families.phi:DOTS_OCR",
    "empty": "tunesmith.templates.families.plain:EMPTY",
    "ernie": "tunesmith.templates.families.chatml:ERNIE",
    "ernie_nothink": "tunesmith.templates.families.chatml:ERNIE_NOTHINK",
    "ernie_vl": "tunesmith.templates.families.chatml:ERNIE_VL",
    "exaone": "tunesmith.templates.families.phi:EXAONE",
    "falcon": "tunesmith.templates.families.plain:FALCON",
    "falcon_h1": "tunesmith.templates.families.chatml:FALCON_H1",
    "fewshot": "tunesmith.templates.families.plain:FEWSHOT",
    "gemma": "tunesmith.templates.families.gemma:GEMMA",
    "gemma2": "tunesmith.templates.families.gemma:GEMMA2",
    "gemma3": "tunesmith.templates.families.gemma:GEMMA3",
    "gemma3n": "tunesmith.templates.families.gemma:GEMMA3N",
    "gemma4": "tunesmith.templates.families.gemma:GEMMA4",
    "gemma4n": "tunesmith.templates.families.gemma:GEMMA4N",
    "glm4": "tunesmith.templates.families.glm:GLM4",
    "glm4_5v": "tunesmith.templates.families.glm:GLM4_5V",
    "glm4_7": "tunesmith.templates.families.glm:GLM4_7",
    "glm4_moe": "tunesmith.templates.families.glm:GLM4_MOE",
    "glm4v": "tunesmith.templates.families.glm:GLM4V",
    "glm_ocr": "tunesmith.templates.families.glm:GLM_OCR",
    "glmz1": "tunesmith.templates.families.glm:GLMZ1",
    "gpt_oss": "tunesmith.templates.families.roles:GPT_OSS",
    "granite3": "tunesmith.templates.families.roles:GRANITE3",
    "granite3_vision": "tunesmith.templates.families.phi:GRANITE3_VISION",
    "granite4": "tunesmith.templates.families.roles:GRANITE4",
    "hunyuan": "tunesmith.templates.families.deepseek:HUNYUAN",
    "hunyuan_small": "tunesmith.templates.families.deepseek:HUNYUAN_SMALL",
    "hy3": "tunesmith.templates.families.deepseek:HY3",
    "index": "tunesmith.templates.families.roles:INDEX",
    "intern2": "tunesmith.templates.families.intern:INTERN2",
    "intern_s1": "tunesmith.templates.families.intern:INTERN_S1",
    "intern_vl": "tunesmith.templates.families.intern:INTERN_VL",
    "keye_vl": "tunesmith.templates.families.qwen:KEYE_VL",
    "kimi_vl": "tunesmith.templates.families.roles:KIMI_VL",
    "lfm2": "tunesmith.templates.families.chatml:LFM2",
    "lfm2_vl": "tunesmith.templates.families.chatml:LFM2_VL",
    "llama2": "tunesmith.templates.families.llama:LLAMA2",
    "llama2_zh": "tunesmith.templates.families.llama:LLAMA2_ZH",
    "llama3": "tunesmith.templates.families.llama:LLAMA3",
    "llama4": "tunesmith.templates.families.llama:LLAMA4",
    "llava": "tunesmith.templates.families.plain:LLAVA",
    "llava_next": "tunesmith.templates.families.plain:LLAVA_NEXT",
    "llava_next_llama3": "tunesmith.templates.families.llama:LLAVA_NEXT_LLAMA3",
    "llava_next_mistral": "tunesmith.templates.families.mistral:LLAVA_NEXT_MISTRAL",
    "llava_next_qwen": "tunesmith.templates.families.qwen:LLAVA_NEXT_QWEN",
    "llava_next_video": "tunesmith.templates.families.plain:LLAVA_NEXT_VIDEO",
    "llava_next_video_mistral": "tunesmith.templates.families.mistral:LLAVA_NEXT_VIDEO_MISTRAL",
    "llava_next_video_yi": "tunesmith.templates.families.chatml:LLAVA_NEXT_VIDEO_YI",
    "llava_next_yi": "tunesmith.templates.families.chatml:LLAVA_NEXT_YI",
    "mimo": "tunesmith.templates.families.qwen:MIMO",
    "mimo_v2": "tunesmith.templates.families.qwen:MIMO_V2",
    "mimo_vl": "tunesmith.templates.families.qwen:MIMO_VL",
    "minicpm_o": "tunesmith.templates.families.chatml:MINICPM_O",
    "minicpm_v": "tunesmith.templates.families.chatml:MINICPM_V",
    "minicpm_v_4_6": "tunesmith.templates.families.chatml:MINICPM_V_4_6",
    "minimax1": "tunesmith.templates.families.roles:MINIMAX1",
    "minimax2": "tunesmith.templates.families.roles:MINIMAX2",
    "ministral": "tunesmith.templates.families.mistral:MINISTRAL",
    "ministral3": "tunesmith.templates.families.mistral:MINISTRAL3",
    "mistral": "tunesmith.templates.families.mistral:MISTRAL",
    "mistral_small": "tunesmith.templates.families.mistral:MISTRAL_SMALL",
    "mllama": "tunesmith.templates.families.llama:MLLAMA",
    "moonlight": "tunesmith.templates.families.roles:MOONLIGHT",
    "olmo": "tunesmith.templates.families.phi:OLMO",
    "openchat": "tunesmith.templates.families.plain:OPENCHAT",
    "openchat-3.6": "tunesmith.templates.families.llama:OPENCHAT_3_6",
    "opencoder": "tunesmith.templates.families.chatml:OPENCODER",
    "paligemma": "tunesmith.templates.families.plain:PALIGEMMA",
    "paligemma_chat": "tunesmith.templates.families.gemma:PALIGEMMA_CHAT",
    "phi": "tunesmith.templates.families.phi:PHI",
    "phi4": "tunesmith.templates.families.phi:PHI4",
    "phi4_mini": "tunesmith.templates.families.phi:PHI4_MINI",
    "phi_small": "tunesmith.templates.families.phi:PHI_SMALL",
    "pixtral": "tunesmith.templates.families.mistral:PIXTRAL",
    "qwen": "tunesmith.templates.families.qwen:QWEN",
    "qwen2_audio": "tunesmith.templates.families.qwen:QWEN2_AUDIO",
    "qwen2_omni": "tunesmith.templates.families.qwen:QWEN2_OMNI",
    "qwen2_vl": "tunesmith.templates.families.qwen:QWEN2_VL",
    "qwen3": "tunesmith.templates.families.qwen:QWEN3",
    "qwen3_5": "tunesmith.templates.families.qwen:QWEN3_5",
    "qwen3_5_nothink": "tunesmith.templates.families.qwen:QWEN3_5_NOTHINK",
    "qwen3_6": "tunesmith.templates.families.qwen:QWEN3_6",
    "qwen3_nothink": "tunesmith.templates.families.qwen:QWEN3_NOTHINK",
    "qwen3_omni": "tunesmith.templates.families.qwen:QWEN3_OMNI",
    "qwen3_omni_nothink": "tunesmith.templates.families.qwen:QWEN3_OMNI_NOTHINK",
    "qwen3_vl": "tunesmith.templates.families.qwen:QWEN3_VL",
    "qwen3_vl_nothink": "tunesmith.templates.families.qwen:QWEN3_VL_NOTHINK",
    "sailor": "tunesmith.templates.families.chatml:SAILOR",
    "seed_coder": "tunesmith.templates.families.roles:SEED_CODER",
    "seed_oss": "tunesmith.templates.families.roles:SEED_OSS",
    "smollm": "tunesmith.templates.families.chatml:SMOLLM",
    "smollm2": "tunesmith.templates.families.chatml:SMOLLM2",
    "solar": "tunesmith.templates.families.plain:SOLAR",
    "starchat": "tunesmith.templates.families.phi:STARCHAT",
    "telechat2": "tunesmith.templates.families.roles:TELECHAT2",
    "vicuna": "tunesmith.templates.families.plain:VICUNA",
    "video_llava": "tunesmith.templates.families.plain:VIDEO_LLAVA",
    "xuanyuan": "tunesmith.templates.families.plain:XUANYUAN",
    "yi": "tunesmith.templates.families.chatml:YI",
    "yi_vl": "tunesmith.templates.families.plain:YI_VL",
    "youtu": "tunesmith.templates.families.deepseek:YOUTU",
    "youtu_vl": "tunesmith.templates.families.deepseek:YOUTU_VL",
    "yuan": "tunesmith.templates.families.roles:YUAN",
    "zephyr": "tunesmith.templates.families.phi:ZEPHYR",
}

TABLES: dict[str, dict[str, str]] = {
    "stage": STAGES,
    "tuning": TUNING,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "template": TEMPLATES,
    "format": FORMATS,
    "tracker": TRACKERS,
}

LONGEST_LIST = 40
"""Names listed in an error; of more, only the nearest are."""


def names(kind: str) -> list[str]:
    """Every name of this kind, in the order of its table."""
    return list(TABLES[kind])


@cache
def find(kind: str, name: str) -> Any:
    """What `name` stands for, imported now.  OptionError with the names there are when it is none of them."""
    import pkgutil

    return pkgutil.resolve_name(TABLES[kind][check(kind, name)])


def require(kind: str, name: str) -> None:
    """Raise MissingExtra when `name` is in a package that is not installed."""
    from importlib.util import find_spec

    package = TABLES[kind][check(kind, name)].split(":")[0].split(".")[0]
    if package in EXTRAS and find_spec(package) is None:
        option = KINDS[kind][0]
        raise MissingExtra(f"{option}: {name}: {package} is not installed; pip install 'tunesmith[{EXTRAS[package]}]'")


def problems_of_template(parts: Mapping[str, Any]) -> list[str]:
    """What is wrong with a template that a user declares by its parts: a sentence for each thing."""
    import pkgutil

    problems: list[str] = pkgutil.resolve_name("tunesmith.templates.resolve:problems_of_parts")(parts)
    return problems


def check(kind: str, name: str) -> str:
    """`name` as its table spells it (case does not matter), without importing anything.  OptionError when unknown."""
    spelled = name if name in TABLES[kind] else name.lower()
    if spelled not in TABLES[kind]:
        raise OptionError(f"{KINDS[kind][0]}: {unknown(kind, name)}")
    return spelled


def unknown(kind: str, name: str) -> str:
    """The sentence that says that there is no such name, what there is, and what is nearest."""
    option, word = KINDS[kind]
    known = names(kind)
    listed = ", ".join(known) if len(known) <= LONGEST_LIST else f"`tunesmith explain {option}` lists all {len(known)}"
    guess = did_you_mean(name, known) or ";"
    return f"unknown {word} '{name}'{guess} allowed: {listed}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that `name` was probably meant to be, or None.  A unique beginning counts, so does a swapped order."""
    import difflib

    known = list(known)
    plain = {one.lower().replace("-", "_"): one for one in known}
    wanted = name.lower().replace("-", "_")
    if close := difflib.get_close_matches(wanted, plain, n=1, cutoff=0.75):
        return plain[close[0]]
    if begun := [one for one in plain if len(wanted) >= 3 and one.startswith(wanted)]:
        return plain[min(begun, key=len)]
    parts = sorted(wanted.split("_"))
    if same := [one for one in plain if sorted(one.split("_")) == parts]:
        return plain[same[0]]
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str], form: str = "'{}'") -> str:
    """`; did you mean 'NAME'?`, or nothing when no known name is near."""
    guess = nearest(name, known)
    return f"; did you mean {form.format(guess)}?" if guess else ""
