"""What every table of a scenario file has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Table(BaseModel):
    """A TOML table: unknown keys are mistakes, values are never changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
