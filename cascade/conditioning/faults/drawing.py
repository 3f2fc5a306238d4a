"""Draws from ranges, which all kinds of faults share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cascade.errors import ContractError
from cascade.space import Range

Uniform = Iterator[float]  # numbers drawn uniformly from [0, 1)
PROBABILITY = (0.0, 1.0)


def between(ends: Range, share: float) -> float:
    """The number at a share in [0, 1] of the way between both ends."""
    low, high = ends
    return low + (high - low) * share


def check_ranges(section: str, values: object, limits: Mapping[str, Range]) -> None:
    """Check the numbers and ranges of a dataclass, and make pairs of lists that JSON held.

    Args:
        section: for the message, such as `degradation.noise`.
        values: a frozen dataclass; None for a value is not checked.
        limits: least and most of each value by its name.

    Raises:
        ContractError: naming the value that is out of range.
    """
    for name, (least, most) in limits.items():
        value: Any = getattr(values, name)
        if isinstance(value, list):
            object.__setattr__(values, name, value := tuple(value))
        low, high = value if isinstance(value, tuple) else (value, value)
        if value is not None and not least <= low <= high <= most:
            raise ContractError(
                f"{section}.{name} must be within {least:g} and {most:g}, low end first, got "
                f"{value}."
            )
