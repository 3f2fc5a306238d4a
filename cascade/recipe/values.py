"""The types of values that keys of recipes have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError


def _no_boolean(value: Any) -> Any:
    """Refuse booleans, which pydantic would accept as the numbers 0 and 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number")
    return value


def has_pairs(value: Any) -> bool:
    """Whether a range is a list of pairs, not one pair of numbers."""
    return isinstance(value, list | tuple) and any(isinstance(each, list | tuple) for each in value)


Whole = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Side = Annotated[Whole, Field(gt=0)]
Pair = tuple[Number, Number]
Pairs = Annotated[
    Annotated[Pair, Tag("pair")] | Annotated[list[Pair], Tag("pairs")],
    Discriminator(lambda value: "pairs" if has_pairs(value) else "pair"),
]
