"""The chat format that the options and the tokenizer mean.  Knows both sides; the templates room knows neither."""

from dataclasses import replace
from typing import Any

from tunesmith import catalog
from tunesmith.config.data import DataConfig
from tunesmith.templates.conversation import ChatFormat
from tunesmith.templates.render import TemplateFormat


def chat_format(cfg: DataConfig, tokenizer: Any, *, stage: str) -> ChatFormat | None:
    if stage == "pt":
        return None
    return TemplateFormat(catalog.find("template", cfg.template))
