"""What may not go together about exporting."""

from collections.abc import Iterator

from tunesmith.config.rules.asked import Asked, Finding


def export_elsewhere(asked: Asked) -> Iterator[Finding]:
    """Options of another command are probably meant to do something."""
    if asked.command != "export":
        for name in ("export_dir", "export_size", "export_device", "export_legacy_format", "export_hub_model_id"):
            if asked.wrote(name):
                yield Finding("note", (name,), "is read by `tunesmith export` alone")


def hub_of_uploads(asked: Asked) -> Iterator[Finding]:
    """Names on two hubs look the same."""
    if asked.config.model.use_modelscope and asked.config.export.export_hub_model_id:
        text = "uploads to Hugging Face; uploading to ModelScope (use_modelscope) is not built"
        yield Finding("error", ("export_hub_model_id", "use_modelscope"), text)
