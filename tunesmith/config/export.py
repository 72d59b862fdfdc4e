"""Where and how a merged model is written."""

from typing import Annotated

from pydantic import Field

from tunesmith.config.section import Positive, Section


class ExportConfig(Section):
    export_dir: str | None = None
    """Folder for the merged model."""

    export_size: Annotated[int, Field(ge=1)] = 5
    """Most gigabytes of one weight file."""

    export_device: str = "cpu"
    """Device on which weights are merged."""

    export_legacy_format: bool = False
    """Write `.bin` files instead of safetensors."""

    export_quantization_bit: Positive | None = None
    """Quantize the merged model to this many bits."""

    export_quantization_dataset: str | None = None
    """Rows to calibrate that quantization with."""

    export_hub_model_id: str | None = None
    """Hub name to upload the merged model to."""
