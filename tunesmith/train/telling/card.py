"""The page that introduces a tuned model: `README.md`, as model hubs read it.  Knows only what it is told."""

import io
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.files import write_beside

STAGES = {"pt": "pre-training on plain text", "sft": "supervised fine-tuning"}
"""A stage in words; others are called by their names."""

SHOWN = (
    "stage", "finetuning_type", "template", "cutoff_len", "packing", "max_samples", "mask_history", "train_on_prompt",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "max_grad_norm", "neftune_noise_alpha",
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "global_batch_size",
    "compute_type", "seed",
)  # fmt: skip
"""Options that the page lists, when they have a value; no other reaches it."""

SHOWN_FOR = {
    "lora": ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_rslora", "use_dora", "lora_init"),
    "freeze": ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"),
}
"""And those of one way of tuning."""


@dataclass(frozen=True, slots=True)
class Card:
    """What the page tells.  Everything must be true of the model that lies in `folder`."""

    folder: Path
    """Where the model is written."""
    base_model: str
    """As the user named it: a folder or a hub name."""
    is_adapter: bool
    """True when the folder holds an adapter, false when it holds a whole model."""
    has_chat_template: bool
    datasets: list[str]
    """As the user named them."""
    options: Mapping[str, Any]
    """Flat name -> effective value; those of `SHOWN` are listed."""
    results: Mapping[str, float]
    """What `all_results.json` holds."""
    versions: Mapping[str, str]
    """Package -> version."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def hub_base(self) -> str | None:
        """The base model's hub name; None for a folder, which means nothing on another machine."""
        return None if _is_path(self.base_model) else self.base_model


def write_card(card: Card) -> Path:
    """Write `README.md` into the card's folder; returns its path."""
    path = card.folder / "README.md"
    write_beside(path, render(card))
    return path


def render(card: Card) -> str:
    """The page as Markdown, with the front matter that hubs read."""
    parts = [
        f"---\n{_front_matter(card)}---",
        f"# {card.name}",
        _introduction(card),
        "## Use it",
        _usage(card),
        "## Training",
        _table(("option", "value"), _shown_options(card)),
        "![training loss](training_loss.png)" if (card.folder / "training_loss.png").exists() else "",
        "## Results" if card.results else "",
        _table(("metric", "value"), {name: _number(value) for name, value in sorted(card.results.items())})
        if card.results
        else "",
        "## Versions",
        "\n".join(f"- {name} {version}" for name, version in card.versions.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: Card) -> str:
    from ruamel.yaml import YAML

    facts: dict[str, Any] = {"license": "other", "library_name": "peft" if card.is_adapter else "transformers"}
    if card.hub_base:
        facts["base_model"] = card.hub_base
    # Names without a prefix are names of this project's data index; a hub would take them for other people's sets.
    names = [re.sub(r"(#\d+)?(@[\d.]+)?$", "", name) for name in card.datasets]
    if public := [name.removeprefix("hf:") for name in names if name.startswith("hf:")]:
        facts["datasets"] = public
    method, stage = card.options.get("finetuning_type"), card.options.get("stage")
    facts |= {"pipeline_tag": "text-generation", "tags": [tag for tag in ("tunesmith", stage, method) if tag]}
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.dump(facts, text)
    return text.getvalue()


def _introduction(card: Card) -> str:
    base = (
        f"[{card.hub_base}](https://huggingface.co/{card.hub_base})" if card.hub_base else _code(_last(card.base_model))
    )
    stage = str(card.options.get("stage", ""))
    kind = "An adapter for" if card.is_adapter else "A version of"
    data = " and ".join(_code(_last(name)) for name in card.datasets)
    return f"{kind} {base}, made by {STAGES.get(stage, stage)}{f' on {data}' if data else ''} with tunesmith."


def _usage(card: Card) -> str:
    folder = str(card.folder)
    auto = "AutoPeftModelForCausalLM" if card.is_adapter else "AutoModelForCausalLM"
    lines = [
        "from peft import AutoPeftModelForCausalLM"
        if card.is_adapter
        else "from transformers import AutoModelForCausalLM",
        "from transformers import AutoTokenizer",
        "",
        f"folder = {folder!r}",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f'model = {auto}.from_pretrained(folder, device_map="auto")',
    ]
    if card.has_chat_template:
        lines += [
            'messages = [{"role": "user", "content": "Who are you?"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ").to(model.device)",
        ]
    else:
        lines.append('inputs = tokenizer("Once upon a time", return_tensors="pt").to(model.device)')
    lines += [
        "output = model.generate(**inputs, max_new_tokens=128)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    code = "\n".join(lines)
    return f"```sh\ntunesmith chat {shlex.quote(folder)}\n```\n\nor, without tunesmith:\n\n```python\n{code}\n```"


def _shown_options(card: Card) -> dict[str, str]:
    names = (*SHOWN, *SHOWN_FOR.get(str(card.options.get("finetuning_type")), ()))
    return {
        f"`{name}`": _code(", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name in names
        if (value := card.options.get(name)) not in (None, "", [])
    }


def _table(head: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _last(name: str) -> str:
    """The last part of a path; a name as it is.  Where things lie on one machine is nobody else's business."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] if _is_path(name) else name


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1 or Path(name).exists()


def _code(text: str) -> str:
    """Text as it stands, safe inside a table's cell."""
    return f"`{text.replace('`', '').replace('|', chr(92) + '|')}`"
