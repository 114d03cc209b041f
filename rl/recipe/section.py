"""What every section of a recipe is, and the numbers that occur in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]

NonNegative = Annotated[int, Field(ge=0)]

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A mapping of the recipe: unknown keys are errors, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
