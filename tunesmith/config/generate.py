"""How answers are generated, in chat and in evaluation."""

from typing import Annotated

from pydantic import Field

from tunesmith.config.section import Count, NonNegativeFloat, Positive, Section


class GenerateConfig(Section):
    prompt: str | None = None
    """Answer this one prompt and exit, instead of a conversation."""

    do_sample: bool = True
    """Draw each token at random from the model's distribution; false takes the likeliest."""

    temperature: NonNegativeFloat = 0.95
    """Flattens (above 1) or sharpens (below 1) the distribution; 0 is the same as `do_sample: false`."""

    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.7
    """Draw from the likeliest tokens whose probabilities sum to this."""

    top_k: Count = 50
    """Draw from this many likeliest tokens; 0 turns it off."""

    num_beams: Annotated[int, Field(ge=1, le=1000)] = 1
    """Beams of beam search."""

    max_new_tokens: Positive = 1024
    """Most tokens of one answer."""

    repetition_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] = 1.0
    """Above 1 makes tokens less likely that were used before."""

    length_penalty: Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)] = 1.0
    """Beam search: above 0 prefers longer answers."""

    skip_special_tokens: bool = True
    """Leave control tokens out of the answer's text."""
