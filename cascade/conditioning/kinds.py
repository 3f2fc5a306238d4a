"""The kinds of conditions, by recipe key. The order here is that of a stage's conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade.conditioning.condition import Condition
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.errors import ContractError, nearest

CONDITIONS: dict[str, type[Condition]] = {
    kind.name: kind for kind in (Labels, LowResolution, Luminance)
}


def find_condition(name: str) -> type[Condition]:
    """The kind of a name.

    Raises:
        ContractError: if there is none; the message offers the nearest name.
    """
    if name not in CONDITIONS:
        raise ContractError(f"unknown condition {name!r}: {nearest(name, CONDITIONS)}")
    return CONDITIONS[name]


def read_conditions(configs: Mapping[str, Mapping[str, Any]]) -> tuple[Condition, ...]:
    """Make conditions from what their `config` gave, by name.

    Raises:
        ContractError: for a kind that does not exist, or a value out of range.
    """
    return tuple(find_condition(name)(**config) for name, config in configs.items())
