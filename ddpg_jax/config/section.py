"""What all sections of the configuration share: their base, and the ranges that their fields are made of."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**53)]
CountOrZero: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
Rate: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Scale: TypeAlias = Annotated[float, Field(ge=0, le=10)]
Weight: TypeAlias = Annotated[float, Field(ge=0, le=1000)]
Width: TypeAlias = Annotated[int, Field(ge=1, le=65536)]


class Section(BaseModel):
    """A table of the configuration: frozen, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
