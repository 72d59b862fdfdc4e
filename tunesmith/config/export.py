"""Where and how a merged model is written."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.config.section import Positive, Section


class ExportConfig(Section):
    export_dir: str | None = None
    """Folder for the merged model: a new or empty one. It appears when it is whole."""

    export_size: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    """Most gigabytes (10^9 bytes) of one weight file; a larger model is divided among several, with an index."""

    export_device: Literal["cpu", "auto"] = "cpu"
    """Device on which weights are merged. `auto`: the GPU when there is one; reading and writing usually take longer."""

    export_legacy_format: bool = False
    """Write `.bin` files instead of safetensors, for programs that read nothing else. The model is held whole, in fp32."""

    export_quantization_bit: Positive | None = None
    """Quantize the merged model to this many bits."""

    export_quantization_dataset: str | None = None
    """Rows to calibrate that quantization with."""

    export_hub_model_id: str | None = None
    """Name on Hugging Face, such as `me/my-model`, to upload the merged model to once its folder is whole. A new one is
    as visible as the account makes new models."""
