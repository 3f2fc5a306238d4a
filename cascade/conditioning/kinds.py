"""The kinds of conditions by recipe key. Stages that recipes describe have them in this order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade.conditioning.condition import Condition
from cascade.conditioning.defects import DefectsCondition
from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.conditioning.labels import Labels
from cascade.conditioning.latents import Latents
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.conditioning.mask import Mask
from cascade.conditioning.paired_image import PairedImage
from cascade.conditioning.text import Text
from cascade.errors import ContractError, nearest

CONDITIONS: dict[str, type[Condition]] = {
    kind.name: kind
    for kind in (
        Labels,
        Text,
        ImageEmbedding,
        LowResolution,
        Luminance,
        PairedImage,
        Mask,
        DefectsCondition,
        Latents,
    )
}


def find_condition(name: str) -> type[Condition]:
    """The kind of condition with a name.

    Raises:
        ContractError: for an unknown name; the message offers the nearest.
    """
    if name not in CONDITIONS:
        raise ContractError(f"unknown condition {name!r}: {nearest(name, CONDITIONS)}")
    return CONDITIONS[name]


def read_conditions(configs: Mapping[str, Mapping[str, Any]]) -> tuple[Condition, ...]:
    """Make conditions from the values of `Condition.config`, by name.

    Raises:
        ContractError: for an unknown kind, or a value out of range.
    """

    return tuple(find_condition(name)(**config) for name, config in configs.items())
