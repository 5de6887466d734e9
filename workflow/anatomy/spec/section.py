"""The base of every section of a study file, and the kinds of number that several use."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of every section: no unknown keys, nothing changes after reading, 3 is not "3"."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError where the heads cannot share the width evenly."""
    if width % heads:
        raise ValueError(f"width {width} cannot be shared by {heads} heads; choose a multiple")
