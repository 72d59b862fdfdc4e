"""What every section of the config shares: strict types, no unknown keys, nothing changed after it was checked."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Mapping = dict[str, Any]
Positive = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Below1 = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of the config.  The docstring under a field is its help: `explain.py` reads it from the source."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=False)
