"""Which model, adapters and chat format to answer with, from options and a run's folder.  Reads no weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tunesmith.config.schema import Config, fields
from tunesmith.jobs.folder import CONFIG
from tunesmith.log import ModelError, OptionError

ADAPTER = "adapter_config.json"
"""The file that makes a folder an adapter's."""

KEPT_TEMPLATE = "chat_template.jinja"
"""The file in which a run keeps its chat format."""

FORM = ("template", "template_args", "tool_format", "enable_thinking", "thinking")
"""Options that make a chat format together: another `template` than the run's leaves the rest of them behind."""

REMEMBERED = (
    *FORM,
    "default_system",
    "allow_special_tokens",
    "placeholders",
    "model_revision",
    "cache_dir",
    "use_modelscope",
    "quantization_bit",
    "quantization_method",
    "quantization_type",
    "double_quantization",
    "rope_scaling",
    "cutoff_len",
)
"""Options that a run's folder decides unless they are written: a model answers best in the form it was trained in.
`trust_remote_code` is not among them: a folder must not be able to allow its own code."""


def settle(cfg: Config, given: frozenset[str], place: str | None = None) -> Config:
    """The config with model, adapter and chat format filled in.

    The model may be a model's folder or name, a run's folder, or a checkpoint in it.  `place` is that when
    `model_name_or_path` names the base of an adapter's folder.  Options in `given` were written and win over the run's.
    """
    name = place or cfg.model.model_name_or_path
    folder = Path(name).expanduser()
    if (folder / ADAPTER).is_file():
        return _from_adapter(cfg, given, folder, cfg.model.model_name_or_path if place else None)
    if place is not None:
        raise OptionError(
            f"model_name_or_path: both {place} and {cfg.model.model_name_or_path} are given; the second is only for the "
            f"base of an adapter, and {place} holds no {ADAPTER}"
        )
    runs = (run_options(Path(one).expanduser()) for one in (*reversed(cfg.model.adapter_name_or_path), name))
    return _remember(cfg, given, next((run for run in runs if run), {}))


def _from_adapter(cfg: Config, given: frozenset[str], folder: Path, base: str | None) -> Config:
    """An adapter's folder by itself.  It holds all that was merged into the base before it, so no other is needed."""
    if cfg.model.adapter_name_or_path:
        raise OptionError(
            f"adapter_name_or_path: {folder} is an adapter itself; name the base model first, then all adapters here"
        )
    run = run_options(folder)
    base = base or _base(folder, run)
    cfg = _replace(cfg, {"model_name_or_path": base, "adapter_name_or_path": [str(folder)]})
    return _remember(cfg, given, run or run_options(Path(base).expanduser()))


def _base(folder: Path, run: Mapping[str, Any]) -> str:
    base = run.get("model_name_or_path") or _read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{folder / ADAPTER} does not say which model it belongs to; give --model_name_or_path")
    if _means_a_path(base) and not Path(base).expanduser().is_dir():
        raise OptionError(
            f"model_name_or_path: {folder} was trained on {base}, which is not there (any more); say where that model "
            "is with --model_name_or_path"
        )
    return str(base)


def run_options(folder: Path) -> dict[str, Any]:
    """Every option of the run that wrote `folder` (or, for a checkpoint, the folder around it); {} if no run did."""
    around = folder.parent if folder.name.startswith("checkpoint-") else folder
    path = next((place / CONFIG for place in (folder, around) if (place / CONFIG).is_file()), None)
    if path is None:
        return {}
    try:
        options = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, YAMLError) as problem:
        raise ModelError(f"{path} can't be read: {problem}") from problem
    if not isinstance(options, dict):
        raise ModelError(f"{path} is not a list of options")
    kept = path.parent / KEPT_TEMPLATE
    if str(options.get("template")).startswith("jinja:") and kept.is_file():
        options["template"] = f"jinja:{kept}"  # the file that was named may be elsewhere, or changed by now
    return options


def end_tokens(folder: Path) -> list[int]:
    """Ids that end an answer by the folder's `generation_config.json`; [] without one."""
    path = folder / "generation_config.json"
    named = _read_json(path).get("eos_token_id") if path.is_file() else None
    return [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, int)]


def _remember(cfg: Config, given: frozenset[str], run: Mapping[str, Any]) -> Config:
    """`cfg` with the run's chat format, where nothing else was written."""
    skipped = given | set(FORM) if "template" in given else given
    return _replace(cfg, {name: run[name] for name in REMEMBERED if name in run and name not in skipped})


def _replace(cfg: Config, values: Mapping[str, Any]) -> Config:
    """`cfg` with other values, by their flat names, checked like any option."""
    changed = {}
    for section in {fields()[name][0] for name in values}:
        before = cfg.model_dump()[section]
        after = {name: value for name, value in values.items() if fields()[name][0] == section}
        changed[section] = before | after
    try:
        return Config.model_validate(cfg.model_dump() | changed)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ModelError(f"the run's {CONFIG}: {first['loc'][1]}: {first['msg']}") from problem


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ModelError(f"{path} can't be read: {problem}") from problem
    return content if isinstance(content, dict) else {}


def _means_a_path(name: str) -> bool:
    """True for what can't be a hub name: absolute, relative by dots, home, or deeper than owner/name."""
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1
